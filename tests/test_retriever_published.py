"""The published `retriever_config.yaml` and FlashRAG's: each field means something here, or is refused by name."""

from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml")
pytest.importorskip("bm25s")

from recall.errors import ConfigError  # noqa: E402
from recall.retriever.service.published import Plan, Published, read  # noqa: E402
from retriever_server import made_index, serving  # noqa: E402

PUBLISHED = """
# ---- Environment Settings ----#
gpu_id: "0,1,2,3,4,5,6,7"

# ---- Retrieval Settings ----#
# If set the name, the model path will be find in global paths
retrieval_method: "{method}"  # name or path of the retrieval model.
index_path: "{index}" # path to the indexed file
faiss_gpu: False # whether use gpu to hold index
corpus_path: "{corpus}"  # path to corpus in '.jsonl' format that store the documents
"""


def plan(tmp_path: Path, fields: dict[str, Any] | str) -> Plan:
    file = tmp_path / "retriever_config.yaml"
    file.write_text(fields if isinstance(fields, str) else yaml.safe_dump(fields))
    return read(file)


def flat_file(tmp_path: Path) -> str:
    path = tmp_path / "e5_Flat.index"
    path.write_bytes(b"")
    return str(path)


def test_the_published_file_over_flashrags_files(tmp_path: Path) -> None:
    index = flat_file(tmp_path)
    got = plan(tmp_path, PUBLISHED.format(method="e5", index=index, corpus="wiki.jsonl"))
    assert (got.index, got.corpus, got.gpus) == (Path(index), Path("wiki.jsonl"), "0,1,2,3,4,5,6,7")
    assert got.opening.encoder.model == "intfloat/e5-base-v2"
    assert list(got.meanings) == ["gpu_id", "retrieval_method", "index_path", "faiss_gpu", "corpus_path"]
    assert all(got.meanings.values())
    got = plan(tmp_path, PUBLISHED.format(method="/models/e5", index=index, corpus="wiki.jsonl"))
    assert got.opening.encoder.model == "/models/e5"


def test_every_retrieval_field_of_flashrag_has_a_meaning(tmp_path: Path) -> None:
    fields = {
        "gpu_id": 0, "retrieval_method": "bge", "retrieval_model_path": None, "index_path": flat_file(tmp_path),
        "multimodal_index_path_dict": None, "faiss_gpu": False, "corpus_path": "c.jsonl", "instruction": "query: ",
        "retrieval_topk": 5, "retrieval_batch_size": 256, "retrieval_use_fp16": True, "retrieval_query_max_length": 128,
        "save_retrieval_cache": False, "use_retrieval_cache": False, "retrieval_cache_path": None,
        "retrieval_pooling_method": "cls", "bm25_backend": "bm25s", "use_sentence_transformer": False,
        "use_reranker": True, "rerank_model_name": "r", "rerank_model_path": "/r", "rerank_pooling_method": None,
        "rerank_topk": None, "rerank_max_length": 512, "rerank_batch_size": 64, "rerank_use_fp16": False,
        "use_multi_retriever": False, "multi_retriever_setting": {"merge_method": "rrf"}, "use_remote_retriever": False,
        "remote_retriever_url": "http://x", "silent_retrieval": True, "model2path": {"bge": "/models/bge"},
        "model2pooling": {"bge": "mean"},
    }  # fmt: skip
    assert set(fields) == set(Published.model_fields)
    got = plan(tmp_path, fields)
    assert list(got.meanings) == list(yaml.safe_load(yaml.safe_dump(fields)))
    encoder, rerank = got.opening.encoder, got.opening.rerank
    assert (encoder.model, encoder.query_prefix, encoder.pooling) == ("/models/bge", "query: ", "cls")
    assert (encoder.query_tokens, encoder.half) == (128, True)
    assert (rerank.model, rerank.tokens, rerank.batch) == ("/r", 512, 64)
    assert (got.serving, got.gpus) == ({"topk": 5, "batch": 256}, "0")


def test_a_directory_of_ours_is_opened_by_its_manifest(tmp_path: Path) -> None:
    (tmp_path / "index").mkdir()
    fields = {"retrieval_method": "bm25", "index_path": str(tmp_path / "index"), "corpus_path": "moved.jsonl"}
    got = plan(tmp_path, {**fields, "retrieval_use_fp16": True})
    assert got.meanings["retrieval_use_fp16"] == "nothing, because retrieval_method is bm25"
    assert (got.opening.kind, got.opening.corpus, got.corpus) == ("bm25", Path("moved.jsonl"), None)
    got = plan(tmp_path, {**fields, "retrieval_method": "e5", "faiss_gpu": True})
    assert (got.opening.kind, got.opening.flat_device, got.opening.encoder.model) == (None, "cuda", "")


BASE = {"retrieval_method": "e5", "index_path": "FLAT", "corpus_path": "c.jsonl"}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"retrieval_method": None}, "retrieval_method: required"),
        ({"index_path": None}, "index_path: required"),
        ({"corpus_path": None}, "corpus_path: required beside a faiss file"),
        ({"faiss_gpu": True}, "faiss_gpu: a faiss file is searched on the CPU"),
        ({"faiss_gpu": "perhaps"}, "faiss_gpu: input should be a valid boolean"),
        ({"retrieval_method": "bm25"}, "index_path: a bm25 index is a directory"),
        ({"retrieval_method": "bm25", "bm25_backend": "pyserini"}, "bm25_backend: 'pyserini' is not supported"),
        ({"retrieval_topk": 0}, "retrieval_topk: input should be greater than or equal to 1"),
        ({"retrieval_pooling_method": "max"}, "retrieval_pooling_method: input should be 'mean'"),
        ({"use_sentence_transformer": True}, "use_sentence_transformer: not supported"),
        ({"save_retrieval_cache": True}, "save_retrieval_cache: not supported"),
        ({"use_retrieval_cache": True}, "use_retrieval_cache: not supported"),
        ({"use_multi_retriever": True}, "use_multi_retriever: not supported"),
        ({"use_remote_retriever": True}, "use_remote_retriever: not supported"),
        ({"multimodal_index_path_dict": {"text": "x"}}, "multimodal_index_path_dict: not supported"),
        ({"use_reranker": True}, "rerank_model_path: required"),
        ({"use_reranker": True, "rerank_model_path": "r", "rerank_topk": 3}, "rerank_topk: not supported"),
        ({"use_reranker": True, "rerank_model_path": "r", "rerank_use_fp16": True}, "rerank_use_fp16: not supported"),
        ({"generator_model": "llama"}, "generator_model: no setting of a retriever; accepted are gpu_id"),
    ],
    ids=str,
)
def test_what_is_not_supported_is_refused_by_name(tmp_path: Path, fields: dict[str, Any], said: str) -> None:
    chosen = {**BASE, "index_path": flat_file(tmp_path), **fields}
    with pytest.raises(ConfigError, match=r"retriever_config\.yaml: ") as refusal:
        plan(tmp_path, {name: value for name, value in chosen.items() if value is not None})
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("text", ["- a\n", "a: [", "", "just text"])
def test_what_is_no_table_is_one_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"retriever_config\.yaml: ") as refusal:
        plan(tmp_path, text)
    assert "\n" not in str(refusal.value)
    with pytest.raises(ConfigError, match="cannot be read"):
        read(tmp_path / "none")


def test_a_published_file_is_served_and_says_what_its_fields_mean(tmp_path: Path) -> None:
    for package in ("uvicorn", "httptools", "prometheus_client", "Stemmer"):
        pytest.importorskip(package)
    index = made_index(tmp_path)
    file = tmp_path / "retriever_config.yaml"
    file.write_text(
        PUBLISHED.format(method="bm25", index=index, corpus=tmp_path / "corpus.jsonl") + "retrieval_topk: 2\n"
    )
    with serving("--config", str(file), log=tmp_path / "log") as server:
        answer = server.ask("POST", "/retrieve", {"queries": ["harbour"]}).json["result"]
        assert len(answer[0]) == 2
    lines = (tmp_path / "log").read_text().splitlines()
    assert f"{file}: retrieval_topk: --topk" in lines
    assert len(lines) == 6
