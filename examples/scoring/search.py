"""The sentences nearest to a question: python search.py FOLDER QUESTION"""

import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from usearch.index import Index

from inference_worker.scoring import score

MODELS = str(Path(__file__).parents[1] / "models")


def load(folder):
    """The texts and embeddings of a folder of results; rows with an error have none."""
    table = pq.read_table(folder, columns=["text", "embedding"])
    table = table.filter(table["embedding"].is_valid()).combine_chunks()
    flat = table["embedding"].combine_chunks().flatten().to_numpy()
    return table["text"].to_pylist(), flat.reshape(table.num_rows, -1)


def main(folder, question):
    texts, embeddings = load(folder)
    index = Index(ndim=embeddings.shape[1], metric="cos")
    index.add(np.arange(len(texts)), embeddings)
    [asked] = score([question], "minilm", local=MODELS)
    for match in index.search(np.array(asked["embedding"], np.float32), 5):
        print(f"{1 - match.distance:.2f}  {texts[int(match.key)]}")


if __name__ == "__main__":
    main(*sys.argv[1:3])
