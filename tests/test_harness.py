"""lm-evaluation-harness runs a small task of our own on our model (extra `eval`)."""

import json

import pytest
import torch

pytest.importorskip("lm_eval")


@pytest.mark.slow
def test_a_small_local_task(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from transformers import PreTrainedTokenizerFast

    import transnormer_edu.hf  # noqa: F401
    from transnormer_edu.tokenizer import Tokenizer
    from transnormer_edu.weights import small_model_folder

    folder = small_model_folder()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"),
        bos_token="<s>", eos_token="</s>", pad_token="<pad>",
    )  # fmt: skip
    rows = [
        {"text": "The function returns", "choices": [" a string.", " qzx jjj."], "label": 0},
        {"text": "Raise a ValueError if", "choices": [" zzkq pq.", " the argument is"], "label": 1},
        {"text": "Return the", "choices": [" xxyyq", " zzqqx"], "label": 1},
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    task = {
        "task": "little", "dataset_path": "json", "output_type": "multiple_choice",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "rows.jsonl")},
                           "cache_dir": str(tmp_path / "cache")},
        "test_split": "test", "doc_to_text": "text", "doc_to_choice": "choices",
        "doc_to_target": "label", "target_delimiter": "", "metric_list": [{"metric": "acc"}],
    }  # fmt: skip
    harness = HFLM(
        pretrained=str(folder), tokenizer=tokenizer, dtype="float32", batch_size=2, device="cpu"
    )
    found = lm_eval.simple_evaluate(harness, tasks=[task], bootstrap_iters=0, log_samples=True)
    ours = Tokenizer.load(folder)
    best = []
    for row, sample in zip(rows, found["samples"]["little"], strict=True):
        prompt = ours.encode(row["text"])
        expected = []
        for choice in row["choices"]:
            ids = torch.tensor([prompt + ours.encode(choice)])
            shares = harness.model.network(ids).log_softmax(-1)[0, len(prompt) - 1 : -1]
            own = ids[0, len(prompt) :, None]
            expected.append(shares.gather(1, own).sum().item())
        given = [response[0] for response in sample["filtered_resps"]]
        assert given == pytest.approx(expected, abs=1e-3)
        best.append(expected.index(max(expected)) == row["label"])
    assert found["results"]["little"]["acc,none"] == pytest.approx(sum(best) / 3)
    assert best[:2] == [True, True]
