"""Each kind of file that frameworks write is understood: numpy's, safetensors, shards, a whole checkpoint."""

from __future__ import annotations

import pickle
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING, Literal

import pytest
import torch
from safetensors.torch import save_file

from pytest_ckpt.checkpoints.digest import tensor_digest
from pytest_ckpt.checkpoints.reading import FileContent, NotACheckpointFile, ReadError, perturb, read_tensors

if TYPE_CHECKING:
    from pathlib import Path


def digests(content: FileContent) -> dict[str, str]:
    """Return the digest of each tensor of a file by its key."""
    return {entry.key: entry.digest for entry in content.tensors}


@pytest.mark.parametrize("by_torch", [True, False], ids=["torch", "pickle"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("protocol", [2, 5])
def test_numpy_values_inside_a_pickle_are_tensors_and_scalars(
    tmp_path: Path, *, by_torch: bool, order: Literal["C", "F"], protocol: int
) -> None:
    """Arrays read like the tensors that torch makes of them, in any order and byte order; scalars like numbers."""
    numpy = pytest.importorskip("numpy")
    array = numpy.asarray(numpy.arange(6.0).reshape(2, 3), order=order)
    tree = {"array": array, "big": array.astype(">i4"), "number": numpy.float32(2.5), "flag": numpy.bool_(1)}
    if by_torch:
        torch.save(tree, tmp_path / "file", pickle_protocol=protocol)
    else:
        (tmp_path / "file").write_bytes(pickle.dumps(tree, protocol=protocol))
    content = read_tensors(tmp_path / "file")
    expected = {"array": torch.from_numpy(array), "big": torch.arange(6, dtype=torch.int32).reshape(2, 3)}
    assert {key: tensor_digest(tensor) for key, tensor in expected.items()} == digests(content)
    assert {"number": 2.5, "flag": True} == content.scalars


def test_numpy_files_are_read_without_pickles(tmp_path: Path) -> None:
    """A .npy file is one tensor, a .npz file one for each name; arrays of objects are not read."""
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(6.0).reshape(2, 3).T
    numpy.save(tmp_path / "one.npy", array)
    numpy.savez(tmp_path / "many.npz", a=array, b=array[:1])
    numpy.savez_compressed(tmp_path / "small.npz", a=array, b=array[:1])
    numpy.save(tmp_path / "objects.npy", numpy.array([{}], dtype=object), allow_pickle=True)
    expected = {"a": tensor_digest(torch.from_numpy(array)), "b": tensor_digest(torch.from_numpy(array[:1]))}
    assert {"": expected["a"]} == digests(read_tensors(tmp_path / "one.npy"))
    assert expected == digests(read_tensors(tmp_path / "many.npz"))
    assert expected == digests(read_tensors(tmp_path / "small.npz"))
    assert "numpy" == read_tensors(tmp_path / "many.npz").format
    assert {"": "a numpy array of type object"} == read_tensors(tmp_path / "objects.npy").unreadable


def test_a_safetensors_file_is_read_without_torch(tmp_path: Path) -> None:
    """Digests, norms and metadata of a safetensors file need no framework."""
    tree = {name: torch.arange(-2, 4).to(dtype) for name, dtype in {"a": torch.float32, "b": torch.bfloat16}.items()}
    save_file(tree, tmp_path / "model.safetensors", metadata={"format": "pt"})
    program = (
        "import sys, pathlib; from pytest_ckpt.checkpoints.reading import read_tensors;"
        "content = read_tensors(pathlib.Path(sys.argv[1]));"
        "print({entry.key: (entry.digest, entry.norm) for entry in content.tensors});"
        "print(dict(content.scalars), content.format, content.has_optimizer);"
        "print({'torch', 'numpy'} & {*sys.modules})"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "model.safetensors")]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    assert str({key: (tensor_digest(value), 19**0.5) for key, value in tree.items()}) == lines[0]
    assert ["{'__metadata__.format': 'pt'} safetensors False", "set()"] == lines[1:]


def test_an_archive_in_foreign_byte_order_is_read_as_torch_loads_it(tmp_path: Path) -> None:
    """Numbers that a machine of the other byte order wrote are the same numbers here; they are not changed in place."""
    tree = {"real": torch.arange(4.0), "half": torch.arange(3.0).half(), "pair": torch.tensor([1 + 2j, 3 - 4j])}
    torch.save(tree, tmp_path / "native.pt")
    foreign = {"little": b"big", "big": b"little"}[sys.byteorder]
    with zipfile.ZipFile(tmp_path / "native.pt") as native, zipfile.ZipFile(tmp_path / "foreign.pt", "w") as target:
        sizes = {"native/data/0": 4, "native/data/1": 2, "native/data/2": 4}
        for info in native.infolist():
            content = foreign if info.filename.endswith("byteorder") else native.read(info)
            size = sizes.get(info.filename, 1)
            target.writestr(info, b"".join(content[at : at + size][::-1] for at in range(0, len(content), size)))
    expected = {key: tensor_digest(tensor) for key, tensor in torch.load(tmp_path / "foreign.pt").items()}
    assert {key: tensor_digest(tensor) for key, tensor in tree.items()} == expected
    assert expected == digests(read_tensors(tmp_path / "foreign.pt"))
    with pytest.raises(ReadError, match="in foreign byte order"):
        perturb(tmp_path / "foreign.pt", lambda key: key == "real")


def test_a_shard_of_a_distributed_checkpoint_is_read_tensor_by_tensor(tmp_path: Path) -> None:
    """One file of many archives gives each of them a number; the names stand in the metadata beside it."""
    from torch.distributed.checkpoint.state_dict_saver import save

    live = [torch.arange(4.0), torch.arange(3.0)]
    tree = {"weight": live[0], "moment": live[1], "step": 5}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *_, **__: None)  # a save without a process group warns
        save(tree, checkpoint_id=tmp_path)
    content = read_tensors(tmp_path / "__0_0.distcp")
    assert {tensor_digest(tensor) for tensor in live} == set(digests(content).values())
    assert [5] == list(content.scalars.values())
    with pytest.raises(ReadError, match="a shard of a distributed checkpoint, which cannot be changed"):
        perturb(tmp_path / "__0_0.distcp", lambda _: True)
    metadata = read_tensors(tmp_path / ".metadata")
    assert ("pickle", ()) == (metadata.format, metadata.tensors)
    assert "weight" in metadata.scalars.values()


@pytest.mark.filterwarnings("ignore")  # those of the trainer are not the subject
def test_every_file_of_a_trainer_checkpoint_is_understood(tmp_path: Path) -> None:
    """Weights, moments, schedule, random state and arguments of a real checkpoint are found under their names."""
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=32, hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    model = transformers.LlamaForCausalLM(config)
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path), max_steps=2, save_steps=2, use_cpu=True, report_to="none", disable_tqdm=True
    )
    rows = [{"input_ids": torch.arange(5) + n, "labels": torch.arange(5) + n} for n in range(16)]
    trainer = transformers.Trainer(model, arguments, train_dataset=rows)
    trainer.train()
    folder = tmp_path / "checkpoint-2"
    files = {name: read_tensors(folder / name) for name in ("model.safetensors", "optimizer.pt", "rng_state.pth")}
    weights = {key: tensor_digest(tensor) for key, tensor in model.state_dict().items()}
    assert weights.items() >= digests(files["model.safetensors"]).items()
    assert "model.embed_tokens.weight" in digests(files["model.safetensors"])
    moments = {
        f"state.{number}.{name}": tensor_digest(tensor)
        for number, state in trainer.optimizer.state_dict()["state"].items()
        for name, tensor in state.items()
    }
    assert moments == digests(files["optimizer.pt"])
    assert files["optimizer.pt"].has_optimizer
    assert {"cpu", "numpy.1"} == set(digests(files["rng_state.pth"]))
    assert "MT19937" == files["rng_state.pth"].scalars["numpy.0"]
    assert 2 == read_tensors(folder / "scheduler.pt").scalars["last_epoch"]
    saved = read_tensors(folder / "training_args.bin").scalars
    assert (str(tmp_path), 2, "steps") == (saved["output_dir"], saved["max_steps"], saved["save_strategy"])
    with pytest.raises(NotACheckpointFile):
        read_tensors(folder / "trainer_state.json")
