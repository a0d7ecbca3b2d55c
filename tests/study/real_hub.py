"""What the repositories of the studies ``paper`` and ``paper-cnn`` hold on the hub, file by file, with tiny tensors.

Files, branches, commits, configurations, columns, splits and numbers of classes are the hub's, as docs/hub.md says
with its sources; widths, vocabularies and pictures are small. What no study reads is there too, as bytes that cannot
be read.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save

from mergerisk.models.sources.templates import CLASS_NAMES
from tests.models.hub_stand_in import PullRequest, Repositories
from tests.models.material import END, VOCABULARY, drawn, save_tokenizer
from tests.tasks.material import table, to_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

CLIP, RESNET = "openai/clip-vit-base-patch32", "microsoft/resnet-50"
EXPERT = "tanganke/clip-vit-base-patch32_{}"
EXPERTS = ("stanford-cars", "resisc45", "eurosat", "svhn", "gtsrb", "mnist", "dtd")
CONVERSION = "c237dc49a33fc61debc9276459120b7eac67e7ef"
"""Head of refs/pr/66 of CLIP's repository."""

CORRUPTIONS = (
    "contrast",
    "gaussian_noise",
    "impulse_noise",
    "jpeg_compression",
    "motion_blur",
    "pixelate",
    "spatter",
)
"""Splits of FusionBench's data sets besides ``train`` and ``test``."""

UNREADABLE = b"not to be read"
_WIDTHS = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1}


@dataclass(frozen=True)
class RealHub:
    """What :func:`tests.models.hub_stand_in.hub` is told.

    Attributes:
        repositories: what main holds.
        commits: at its head.
        pull_requests: open ones.
    """

    repositories: Repositories = field(default_factory=dict)
    commits: dict[str, str] = field(default_factory=dict)
    pull_requests: dict[str, Sequence[PullRequest]] = field(default_factory=dict)


@dataclass(frozen=True)
class Data:
    """A data set.

    Attributes:
        name: ``org/name``.
        commit: at the head of main.
        classes: how many.
        form: of its pictures: mode, format, smallest and largest side.
        shards: files per split; of the first splits that are read.
        others: further splits.
        folder: of its configuration.
    """

    name: str
    commit: str
    classes: int
    form: tuple[str, str, int, int]
    shards: int = 1
    others: tuple[str, ...] = CORRUPTIONS
    folder: str = "data"


DATA = {
    "cars": Data(
        "tanganke/stanford_cars",
        "9abf6cf7d6dfa7b95152a0d6e791ea9435b47a40",
        196,
        ("RGB", "JPEG", 40, 90),
        shards=2,
    ),
    "resisc45": Data(
        "tanganke/resisc45", "5c484982a196dcb501b8e79c6cf4680dc6f2ccdf", 45, ("RGB", "JPEG", 256, 256)
    ),
    "eurosat": Data("tanganke/eurosat", "43750fc422c7fbd4289e2df3f7473617a5937acc", 10, ("RGB", "JPEG", 64, 64)),
    "svhn": Data(
        "ufldl-stanford/svhn",
        "f9e1717d73324ebbc1ece84267ccd80d0aca0690",
        10,
        ("RGB", "PNG", 32, 32),
        others=("extra",),
        folder="cropped_digits",
    ),
    "gtsrb": Data("tanganke/gtsrb", "ea889fff70dda7b09e94a4b207dded438deca549", 43, ("RGB", "PNG", 25, 120)),
    "mnist": Data(
        "ylecun/mnist",
        "77f3279092a1c1579b2250db8eafed0ad422088c",
        10,
        ("L", "PNG", 28, 28),
        others=(),
        folder="mnist",
    ),
    "dtd": Data(
        "tanganke/dtd", "d2afa97d9f335b1a6b3b09c637aef667f98f966e", 47, ("RGB", "JPEG", 60, 90), others=()
    ),
}


def real_hub(folder: Path) -> RealHub:
    """All that both studies ask for; ``folder`` is for files on the way."""
    made = RealHub()
    _add_clip(made, folder)
    _add_resnet(made)
    for data in DATA.values():
        made.repositories[data.name] = _dataset(data)
        made.commits[data.name] = data.commit
    return made


def _add_clip(made: RealHub, folder: Path) -> None:
    """CLIP, pickled on main and converted in two pull requests of which one is older than main; and the experts."""
    config = clip_config()
    model = drawn(transformers.CLIPModel(transformers.CLIPConfig(**config)))
    model.save_pretrained(folder / "clip")
    state = load_file(folder / "clip" / "model.safetensors")
    positions = {"text_model.embeddings.position_ids": 77, "vision_model.embeddings.position_ids": 50}
    state |= {name: torch.arange(count)[None] for name, count in positions.items()}  # buffers, before 4.31
    main = {
        ".gitattributes": b"",
        "README.md": b"# Model Card: CLIP",
        "config.json": json.dumps(config).encode(),
        "flax_model.msgpack": UNREADABLE,
        "preprocessor_config.json": json.dumps(_preprocessor("CLIPFeatureExtractor", crop=True)).encode(),
        "pytorch_model.bin": _pickled(state),
        "tf_model.h5": UNREADABLE,
        **_tokenizer(folder / "tokenizer"),
    }
    weights = {"model.safetensors": save(state, {"format": "pt"})}
    older = {name: content for name, content in main.items() if name != "tokenizer_config.json"}
    older["tokenizer_config.json"] = b"{}"
    made.repositories[CLIP] = main
    made.commits[CLIP] = "3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268"
    made.pull_requests[CLIP] = (
        PullRequest(66, main | weights, commit=CONVERSION),
        PullRequest(15, older | weights, commit="b33cedfd0df4e43b8238760678fcc89e1a0d38b3"),
        PullRequest(21, main, author="somebody", title="Update README.md"),
    )
    vision = {name: tensor for name, tensor in state.items() if name.startswith("vision_model.")}
    del vision["vision_model.embeddings.position_ids"]  # the experts were saved by a later version
    for number, task in enumerate(EXPERTS):
        draws = torch.Generator().manual_seed(number + 1)
        moved = {
            name: tensor + 0.02 * torch.randn(tensor.shape, generator=draws) for name, tensor in vision.items()
        }
        made.repositories[EXPERT.format(task)] = {
            ".gitattributes": b"",
            "README.md": b"# Model Card",
            "config.json": json.dumps(_expert_config(config)).encode(),
            "model.safetensors": save(moved, {"format": "pt"}),
        }


def clip_config() -> dict[str, Any]:
    """CLIP's ``config.json`` as transformers 4.16 wrote it, with its empty dictionaries and the wrong end token."""
    generation = {"do_sample": False, "num_beams": 1, "max_length": 20, "torch_dtype": None, "use_bfloat16": False}
    shared = _WIDTHS | generation | {"hidden_act": "quick_gelu", "projection_dim": 16, "layer_norm_eps": 1e-05}
    text = shared | {
        "model_type": "clip_text_model",
        "bos_token_id": 0,
        "eos_token_id": 2,
        "pad_token_id": 1,
        "max_position_embeddings": 77,
        "vocab_size": VOCABULARY,
        "transformers_version": "4.16.0.dev0",
    }
    vision = shared | {
        "model_type": "clip_vision_model",
        "image_size": 224,
        "patch_size": 32,
        "transformers_version": "4.16.0.dev0",
    }
    return {
        "_name_or_path": CLIP,
        "architectures": ["CLIPModel"],
        "initializer_factor": 1.0,
        "logit_scale_init_value": 2.6592,
        "model_type": "clip",
        "projection_dim": 16,
        "text_config": text,
        "text_config_dict": None,
        "transformers_version": None,
        "vision_config": vision,
        "vision_config_dict": None,
    }


def _expert_config(clip: dict[str, Any]) -> dict[str, Any]:
    names = (*_WIDTHS, "hidden_act", "projection_dim", "layer_norm_eps", "model_type", "image_size", "patch_size")
    return {
        "_name_or_path": CLIP,
        "architectures": ["CLIPVisionModel"],
        "attention_dropout": 0.0,
        "dropout": 0.0,
        "initializer_factor": 1.0,
        "initializer_range": 0.02,
        "num_channels": 3,
        "torch_dtype": "float32",
        "transformers_version": "4.40.1",
    } | {name: clip["vision_config"][name] for name in names}


def _preprocessor(kind: str, *, crop: bool) -> dict[str, Any]:
    """As transformers 4.16 wrote it: sizes are numbers."""
    clip = {
        "crop_size": 224,
        "do_center_crop": True,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    }
    imagenet = {"crop_pct": 0.875, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    usual = {"do_normalize": True, "do_resize": True, "feature_extractor_type": kind, "resample": 3, "size": 224}
    return usual | (clip if crop else imagenet)


def _tokenizer(folder: Path) -> dict[str, bytes]:
    """All five files; none names a class of tokenizers."""
    folder.mkdir()
    save_tokenizer(folder, 77)
    backend = transformers.CLIPTokenizerFast.from_pretrained(folder).backend_tokenizer
    end, start = ({"content": token, "normalized": True} for token in ("<|endoftext|>", "<|startoftext|>"))
    about = {"unk_token": end, "bos_token": start, "eos_token": end, "pad_token": "<|endoftext|>"}
    settings = {"add_prefix_space": False, "errors": "replace", "do_lower_case": True, "model_max_length": 77}
    return {
        "merges.txt": (folder / "merges.txt").read_bytes(),
        "special_tokens_map.json": json.dumps(about).encode(),
        "tokenizer.json": backend.to_str().encode(),
        "tokenizer_config.json": json.dumps(about | settings | {"name_or_path": "./clip_ViT_B_32/"}).encode(),
        "vocab.json": (folder / "vocab.json").read_bytes(),
    }


def _add_resnet(made: RealHub) -> None:
    """ResNet-50, whose owner has merged the bot's conversion."""
    names = {str(number): f"object {number}" for number in range(1000)}
    config = {
        "architectures": ["ResNetForImageClassification"],
        "depths": [1, 1, 1, 1],
        "downsample_in_first_stage": False,
        "embedding_size": 8,
        "hidden_act": "relu",
        "hidden_sizes": [8, 8, 16, 16],
        "id2label": names,
        "label2id": {name: int(number) for number, name in names.items()},
        "layer_type": "bottleneck",
        "model_type": "resnet",
        "num_channels": 3,
        "torch_dtype": "float32",
        "transformers_version": "4.18.0.dev0",
    }
    model = drawn(transformers.ResNetForImageClassification(transformers.ResNetConfig(**config)))
    state = model.state_dict()
    made.repositories[RESNET] = {
        ".gitattributes": b"",
        "README.md": b"# ResNet-50 v1.5",
        "config.json": json.dumps(config).encode(),
        "flax_model.msgpack": UNREADABLE,
        "model.safetensors": save(state, {"format": "pt"}),
        "preprocessor_config.json": json.dumps(_preprocessor("ConvNextFeatureExtractor", crop=False)).encode(),
        "pytorch_model.bin": _pickled(state),
        "tf_model.h5": UNREADABLE,
    }
    made.commits[RESNET] = "34c2154c194f829b11125337b98c8f5f9965ff19"


def _dataset(data: Data) -> dict[str, bytes]:
    """Two training pictures and a test picture per class."""
    task = next(task for task, it in DATA.items() if it is data)
    names = CLASS_NAMES.get(task, tuple(f"class {number}" for number in range(data.classes)))
    assert len(names) == data.classes
    files = {".gitattributes": b"", "README.md": b"dataset_info"}
    for first, split, per_class in ((0, "train", 2), (10_000, "test", 1)):
        labels = [*range(data.classes)] * per_class
        for shard in range(data.shards):
            part = labels[shard :: data.shards]
            pictures = [_picture(first + 2 * i + shard, label, data.form) for i, label in enumerate(part)]
            name = f"{data.folder}/{split}-{shard:05d}-of-{data.shards:05d}.parquet"
            files[name] = to_bytes(table(part, pictures, names=names), rows=100)
    for split in data.others:
        count = 2 if split in {"gaussian_noise", "impulse_noise", "spatter", "extra"} else 1
        count = count if data.shards > 1 or split == "extra" else 1
        files |= {f"{data.folder}/{split}-{i:05d}-of-{count:05d}.parquet": UNREADABLE for i in range(count)}
    if data.folder == "cropped_digits":
        files |= {
            f"full_numbers/{split}-00000-of-00001.parquet": UNREADABLE for split in ("train", "test", "extra")
        }
    return files


def _picture(number: int, label: int, form: tuple[str, str, int, int]) -> bytes:
    """A noisy picture in the colour of its class."""
    mode, kind, smallest, largest = form
    draws = np.random.default_rng(number)
    height, width = draws.integers(smallest, largest + 1, 2).tolist()
    tint = np.array([label * 37 % 256, label * 91 % 256, label * 153 % 256])
    noise = draws.integers(0, 256, (-(-height // 8), -(-width // 8), 3)).repeat(8, axis=0).repeat(8, axis=1)
    pixels = (0.6 * tint + 0.4 * noise[:height, :width]).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, kind)
    return buffer.getvalue()


def _pickled(state: dict[str, torch.Tensor]) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


assert END == VOCABULARY - 1, "CLIP's end token is its last"
