"""The HTTP door: Open Inference Protocol, OpenAI's embeddings, and plain JSON for people. Needs the extra `http`."""
