"""A digest names exactly the dtype, shape and bits of a tensor, and asking for one leaves no trace in the job."""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from pytest_ckpt.checkpoints.digest import (
    Unreadable,
    bytes_digest,
    cast_digests,
    element_bytes,
    file_digest,
    raw_digest,
    tensor_digest,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PLAIN_DTYPES = (
    torch.bool,
    torch.uint8,
    torch.uint16,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.bfloat16,
    torch.float16,
    torch.float32,
    torch.float64,
    torch.float8_e4m3fn,
    torch.complex64,
    torch.complex128,
)


def _of_bytes(data: bytes, dtype: torch.dtype) -> torch.Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8).view(dtype)


@pytest.mark.parametrize("dtype", PLAIN_DTYPES, ids=str)
def test_digest_covers_dtype_shape_and_bytes_of_every_plain_dtype(dtype: torch.dtype) -> None:
    """The digest of a tensor is that of its dtype's name, its shape and its row-major bytes."""
    data = bytes([1, 0] * 24) if dtype == torch.bool else bytes(range(48))
    tensor = _of_bytes(data, dtype).reshape(3, -1)
    assert raw_digest(str(dtype).removeprefix("torch."), tensor.shape, data) == tensor_digest(tensor)
    assert data == element_bytes(tensor)


def test_digest_stays_the_same_from_release_to_release() -> None:
    """A digest that was kept can be compared with one that is taken by a later version."""
    tensor = torch.tensor([[0, 1, 2], [3, 4, 5]], dtype=torch.int16)
    assert tensor_digest(tensor) == "3ec9f4379cb134f7fae78c94ca1d7cb6"


@pytest.mark.parametrize(
    "view",
    [
        lambda: torch.arange(12.0).reshape(4, 3).t().contiguous().t(),
        lambda: torch.arange(-3.0, 24.0)[3:15].reshape(4, 3),
        lambda: torch.stack([torch.arange(12.0), torch.zeros(12)], 1)[:, 0].reshape(4, 3),
        lambda: torch.nn.Parameter(torch.arange(12.0).reshape(4, 3)),
        lambda: torch.arange(12.0).reshape(4, 3).neg().neg(),
        lambda: torch.complex(torch.zeros(4, 3), -torch.arange(12.0).reshape(4, 3)).conj().imag,
    ],
    ids=["transposed", "offset", "strided", "parameter", "computed", "negative view"],
)
def test_digest_does_not_depend_on_memory_layout(view: Callable[[], torch.Tensor]) -> None:
    """The same elements have the same digest, however they lie in memory."""
    assert tensor_digest(torch.arange(12.0).reshape(4, 3)) == tensor_digest(view())


def test_expanded_conjugated_and_channels_last_tensors_are_read_as_they_look() -> None:
    """Tensors whose memory differs from what they show are digested as shown."""
    number = torch.tensor([[1 + 2j], [3 - 4j]])
    images = torch.arange(24.0).reshape(1, 2, 3, 4)
    assert tensor_digest(torch.tensor([[7.0] * 3] * 2)) == tensor_digest(torch.tensor(7.0).expand(2, 3))
    assert tensor_digest(torch.tensor([[1 - 2j], [3 + 4j]])) == tensor_digest(number.conj())
    assert tensor_digest(images) == tensor_digest(images.to(memory_format=torch.channels_last))


@settings(deadline=None, max_examples=60)
@given(data=st.binary(min_size=8, max_size=64).map(lambda data: data[: len(data) // 8 * 8]), bit=st.integers(0, 511))
def test_every_single_bit_changes_the_digest(data: bytes, bit: int) -> None:
    """No bit of a tensor is left out, not that of a NaN's payload either."""
    changed = bytearray(data)
    changed[bit // 8 % len(data)] ^= 1 << bit % 8
    for dtype in (torch.float32, torch.bfloat16, torch.int64):
        assert tensor_digest(_of_bytes(data, dtype)) != tensor_digest(_of_bytes(bytes(changed), dtype))
        assert tensor_digest(_of_bytes(data, dtype)) == tensor_digest(_of_bytes(data, dtype))


def test_values_that_compare_equal_but_differ_in_bits_have_different_digests() -> None:
    """Minus zero and the payload of a NaN are told apart; a NaN equals itself."""
    nan, other = (_of_bytes(struct.pack("<I", bits), torch.float32) for bits in (0x7FC00000, 0x7FC00001))
    assert tensor_digest(torch.tensor([0.0])) != tensor_digest(torch.tensor([-0.0]))
    assert tensor_digest(nan) != tensor_digest(other)
    assert tensor_digest(torch.tensor([math.nan])) == tensor_digest(nan)


def test_shape_and_dtype_are_part_of_the_digest() -> None:
    """Tensors of the same bytes differ if they differ in shape or dtype, without elements too."""
    tensors = [torch.zeros(6), torch.zeros(2, 3), torch.zeros(6, dtype=torch.int32), torch.zeros(3, 2), torch.zeros(())]
    empty = [torch.zeros(0), torch.zeros(0, 2), torch.zeros(2, 0), torch.zeros(0, dtype=torch.int32)]
    assert len({tensor_digest(tensor) for tensor in tensors + empty}) == 9


def test_digest_leaves_no_trace_in_the_job() -> None:
    """Neither autograd, random generators nor the modes and subclasses of a job notice that a digest was taken."""
    seen: list[str] = []

    class Functions(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    class Dispatches(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    weight = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3))
    views = [weight, weight.t(), weight.detach().expand(4, 2, 3), weight * 2]
    versions = [view._version for view in views]  # noqa: SLF001 - the only sight of a write
    state = torch.get_rng_state()
    with Functions(), Dispatches():  # type: ignore[no-untyped-call]
        for view in views:
            tensor_digest(view)
            cast_digests(view)
    assert [] == seen
    assert torch.equal(state, torch.get_rng_state())
    assert versions == [view._version for view in views]  # noqa: SLF001 - the only sight of a write
    assert weight.grad is None


def test_a_subclass_with_its_own_storage_is_read_without_being_asked() -> None:
    """A subclass that refuses every operation is read like the tensor it is."""

    class Stubborn(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
            raise NotImplementedError

    tensor = torch.arange(6.0).reshape(2, 3)
    assert tensor_digest(tensor) == tensor_digest(tensor.as_subclass(Stubborn))
    assert tensor_digest(tensor.t()) == tensor_digest(tensor.t().as_subclass(Stubborn))


@pytest.fixture
def _one_rank() -> Iterator[None]:
    store = torch.distributed.HashStore()  # type: ignore[attr-defined]
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def _fake() -> torch.Tensor:
    with FakeTensorMode():
        return torch.empty(4)


def _freed(start: int) -> torch.Tensor:
    tensor = torch.zeros(10)[start:]
    tensor.untyped_storage().resize_(0)
    return tensor


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: torch.empty(3, device="meta"), "a meta tensor"),
        (lambda: torch.empty(0, device="meta"), "a meta tensor"),
        (lambda: torch.eye(3).to_sparse(), "a tensor with layout torch.sparse_coo"),
        (lambda: torch.eye(3).to_mkldnn(), "a tensor with layout torch._mkldnn"),
        (_fake, "a FakeTensor"),
        (lambda: _freed(0), "a tensor whose storage was freed or lies elsewhere"),
        (lambda: _freed(4), "a tensor whose storage was freed or lies elsewhere"),
        (torch.nn.UninitializedParameter, "a UninitializedParameter"),
    ],
    ids=["meta", "empty meta", "sparse", "opaque", "fake", "freed", "freed with offset", "uninitialized"],
)
def test_a_tensor_without_elements_of_its_own_is_unreadable(make: Callable[[], torch.Tensor], kind: str) -> None:
    """What cannot be read is refused by name, and no cast of it is read either."""
    tensor = make()
    with pytest.raises(Unreadable) as caught:
        tensor_digest(tensor)
    assert caught.value.kind.startswith(kind)
    assert kind in str(caught.value)
    with pytest.raises(Unreadable):
        cast_digests(tensor)


@pytest.mark.filterwarnings("ignore:(Sparse CSR|torch.quantize|The PyTorch API of nested)")
@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: torch.eye(3).to_sparse_csr(), "a tensor with layout torch.sparse_csr"),
        (lambda: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]), "a nested tensor"),
        (lambda: torch.quantize_per_tensor(torch.zeros(4), 0.1, 0, torch.qint8), "a quantized tensor (torch.qint8)"),
    ],
    ids=["compressed", "nested", "quantized"],
)
def test_a_tensor_of_a_special_layout_is_unreadable(make: Callable[[], torch.Tensor], kind: str) -> None:
    """Compressed, nested and quantized tensors are refused, although some of them have memory."""
    with pytest.raises(Unreadable) as caught:
        tensor_digest(make())
    assert kind == caught.value.kind


@pytest.mark.usefixtures("_one_rank")
def test_a_distributed_tensor_is_unreadable_on_one_rank() -> None:
    """A DTensor is refused by name: one rank holds a part of it at most."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    tensor = distribute_tensor(torch.zeros(4), init_device_mesh("cpu", (1,)), [Shard(0)])
    with pytest.raises(Unreadable, match="cannot read the elements of a DTensor"):
        tensor_digest(tensor)


@pytest.mark.parametrize("transform", [torch.vmap, lambda function: torch.func.grad(lambda x: function(x).sum())])
def test_a_tensor_inside_a_function_transform_is_unreadable(transform: Callable[..., Any]) -> None:
    """Inside vmap and grad a tensor stands for others; reading it is refused and the transform goes on."""
    kinds: list[str] = []

    def watched(tensor: torch.Tensor) -> torch.Tensor:
        with pytest.raises(Unreadable) as caught:
            tensor_digest(tensor)
        kinds.append(caught.value.kind)
        return tensor * 2

    transform(watched)(torch.ones(3))
    assert 1 == len(kinds)
    assert kinds[0].startswith("a Tensor (")


@pytest.mark.parametrize(
    ("dtype", "casts"),
    [
        (torch.float32, (torch.bfloat16, torch.float16)),
        (torch.bfloat16, (torch.float32,)),
        (torch.float16, (torch.float32,)),
        (torch.float64, (torch.float32,)),
        (torch.int64, ()),
    ],
    ids=str,
)
def test_cast_digests_are_those_of_the_cast_tensors(dtype: torch.dtype, casts: tuple[torch.dtype, ...]) -> None:
    """What a save casts to another precision can be found by the digests taken before."""
    tensor = torch.arange(12).reshape(3, 4).to(dtype).t() / (1 if dtype == torch.int64 else 3)
    tensor = tensor.to(dtype)
    assert tuple(tensor_digest(tensor.to(cast)) for cast in casts) == cast_digests(tensor)


def test_file_digest_is_that_of_its_bytes(tmp_path: Path) -> None:
    """A file has the digest of its content, whatever its size, its name or the kind of buffer compared."""
    for size in (0, 1, (1 << 20) + 3):
        content = bytes(range(256)) * (size // 256 + 1)
        (tmp_path / "file").write_bytes(content)
        assert bytes_digest(content) == file_digest(tmp_path / "file")
        assert bytes_digest(memoryview(bytearray(content))) == file_digest(tmp_path / "file")
    assert 32 == len(bytes_digest(b""))
    assert bytes_digest(b"a") != bytes_digest(b"b")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_tensor_on_a_gpu_has_the_digest_of_its_copy_on_the_host() -> None:
    """The device is no part of the digest; strides, views and casts hold there too."""
    tensor = torch.randn(5, 7, dtype=torch.complex64)
    for view in (tensor, tensor.t(), tensor.conj(), tensor.conj().imag, tensor[2:, 1:], tensor.real[:1].expand(3, 7)):
        assert tensor_digest(view) == tensor_digest(view.cuda())
        assert cast_digests(view) == cast_digests(view.cuda())
