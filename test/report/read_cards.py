"""What huggingface_hub reads in the heads of model cards: texts as a JSON list on standard input."""

import json
import sys

from huggingface_hub import ModelCardData
from huggingface_hub.repocard_data import model_index_to_eval_results
from huggingface_hub.repocard import RepoCard


def read(text):
    card = RepoCard(text, ignore_metadata_errors=False)
    data = card.data.to_dict()
    results = []
    if "model-index" in data:
        name, evaluations = model_index_to_eval_results(data["model-index"])
        results = [
            {
                "model": name,
                "task": each.task_type,
                "suite": each.dataset_name,
                "metric": each.metric_type,
                "value": each.metric_value,
                "args": each.metric_args,
            }
            for each in evaluations
        ]
        # It builds the same head again from what it read.
        model = ModelCardData(model_name=name, eval_results=evaluations)
        assert model.to_dict()["model-index"] == data["model-index"], "another head"
    return {"data": {k: v for k, v in data.items() if k != "model-index"}, "results": results}


def answer(text):
    try:
        return read(text)
    except Exception as error:  # what is wrong is the answer
        return f"{type(error).__name__}: {error}"


print(json.dumps([answer(text) for text in json.load(sys.stdin)]))
