"""The same models inside Ray, Dask and Spark, for real. Not run by default: these engines are half a gigabyte.

pip install '.[engines]' && INFERENCE_WORKER_TEST_ENGINES=1 pytest tests/scoring/test_engines.py
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from tests.scoring.conftest import MODELS

pytestmark = [
    pytest.mark.engines,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(
        os.environ.get("INFERENCE_WORKER_TEST_ENGINES") is None,
        reason="set INFERENCE_WORKER_TEST_ENGINES=1, with the extra `engines` installed",
    ),
]
ROOT = str(Path(__file__).parents[2])
NUMBERS = list(range(100))
SQUARES = [number * number for number in NUMBERS]


def test_ray_data_keeps_a_pool_of_actors_with_the_model() -> None:
    import ray

    from inference_worker.integrations.ray import Scorer

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": ROOT}})
    try:
        data = ray.data.from_arrow(pa.table({"number": NUMBERS}))
        scored = data.map_batches(
            Scorer,
            fn_constructor_kwargs={"model": "square", "models": MODELS},
            batch_format="pyarrow",
            batch_size=32,
            compute=ray.data.ActorPoolStrategy(size=1),
        )
        rows = scored.take_all()
    finally:
        ray.shutdown()

    assert sorted(row["square"] for row in rows) == SQUARES
    assert all(row["number"] ** 2 == row["square"] for row in rows)


def test_dask_scores_each_partition_and_keeps_the_index() -> None:
    import dask.dataframe
    import pandas

    from inference_worker.integrations.dask import score

    frame = dask.dataframe.from_pandas(pandas.DataFrame({"number": NUMBERS}), npartitions=4)

    scored = score(frame, model="square", models=MODELS).compute(scheduler="threads")

    assert scored["square"].tolist() == SQUARES
    assert scored.index.tolist() == NUMBERS


def test_spark_scores_by_its_python_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    from pyspark.sql import SparkSession

    from inference_worker.integrations.spark import scorer

    monkeypatch.setenv("PYTHONPATH", ROOT)
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    spark = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
    try:
        frame = spark.createDataFrame([(number,) for number in NUMBERS], "number long").repartition(2)
        scored = frame.mapInArrow(
            scorer(model="square", models=MODELS), "number long, square long, _errors string"
        ).orderBy("number")
        rows = scored.collect()
    finally:
        spark.stop()

    assert [row["square"] for row in rows] == SQUARES


def test_a_dataset_comes_back_as_one() -> None:
    from datasets import Dataset

    from inference_worker.scoring import score

    scored = score(Dataset.from_dict({"number": NUMBERS}), "square", local=MODELS)

    assert isinstance(scored, Dataset)
    assert list(scored["square"]) == SQUARES
