"""Images in prompts, in the forms that models with eyes take."""

import base64
import re
from typing import Any

from byzerllm.errors import InvalidRequestError

_TAG = re.compile(r"<img ([^>]+)>")

# The first bytes of a file say what it is.
_SIGNATURES = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"RIFF", "webp"),
)


def get_image_data(image_file: str, use_b64: bool = True) -> str | bytes:
    """The bytes of an image, as base64 unless told otherwise: of a file, an http(s) URL, a data URI or base64."""
    if image_file.startswith(("http://", "https://")):
        from urllib.request import urlopen

        with urlopen(image_file, timeout=60) as response:
            content: bytes = response.read()
    elif re.match(r"data:image/[\w.+-]+;base64,", image_file):
        content = _decoded(image_file.split(",", 1)[1])
    else:
        try:
            with open(image_file, "rb") as file:
                content = file.read()
        except (OSError, ValueError):
            content = _decoded(image_file)
    return base64.b64encode(content).decode("ascii") if use_b64 else content


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        shown = text if len(text) <= 80 else f"{text[:80]}…"
        raise InvalidRequestError(
            f"{shown!r} is no image: neither a file nor a URL nor base64", param="image_file"
        ) from None


def convert_base64_to_data_uri(base64_image: str) -> str:
    """A data URI of an image in base64; its kind is read from its first bytes, and JPEG when they say nothing."""
    start = _decoded(base64_image[:64])
    kind = next((kind for signature, kind in _SIGNATURES if start.startswith(signature)), "jpeg")
    return f"data:image/{kind};base64,{base64_image}"


def llava_formater(prompt: str, order_image_tokens: bool = False) -> tuple[str, list[str]]:
    """A prompt with `<image>` in the place of each `<img FILE>`, numbered if asked for, and the images in base64."""
    images: list[str] = []

    def replace(found: re.Match[str]) -> str:
        images.append(str(get_image_data(found[1].strip())))
        return f"<image {len(images) - 1}>" if order_image_tokens else "<image>"

    return _TAG.sub(replace, prompt), images


def gpt4v_formatter(prompt: str, img_format: str = "uri") -> list[dict[str, Any]]:
    """The parts of an OpenAI message: texts, and an image in the place of each `<img FILE>`.

    `img_format` is `uri` for the image itself as a data URI, or `url` for the address as it is written.
    """
    if img_format not in ("uri", "url"):
        raise InvalidRequestError(
            f'img_format must be "uri" or "url", got {img_format!r}', param="img_format"
        )
    parts: list[dict[str, Any]] = []
    end = 0
    for found in _TAG.finditer(prompt):
        if text := prompt[end : found.start()]:
            parts.append({"type": "text", "text": text})
        place = found[1].strip()
        url = convert_base64_to_data_uri(str(get_image_data(place))) if img_format == "uri" else place
        parts.append({"type": "image_url", "image_url": {"url": url}})
        end = found.end()
    if text := prompt[end:]:
        parts.append({"type": "text", "text": text})
    return parts


def extract_img_paths(paragraph: str) -> list[str]:
    """The paths and addresses of images that a text mentions."""
    return re.findall(r"\S+?\.(?:jpe?g|png|gif|bmp|webp)\b", paragraph, flags=re.IGNORECASE)
