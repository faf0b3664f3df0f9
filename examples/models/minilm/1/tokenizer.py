"""Text to token ids, one array per text: the worker pads those that share a batch."""

import numpy as np
from tokenizers import Tokenizer as TokenizersTokenizer


class Tokenizer:
    def load(self, context):
        options = context.spec.processing
        self._tokenizer = TokenizersTokenizer.from_file(str(context.path(options["tokenizer"])))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(options["max_tokens"])

    def preprocess(self, request):
        ids = [self._ids(text) for text in request.inputs["text"]]
        return {"input_ids": ids, "attention_mask": [np.ones_like(one) for one in ids]}

    def _ids(self, text):
        text = text.decode() if isinstance(text, bytes) else text
        return np.array(self._tokenizer.encode(text).ids, dtype=np.int64)
