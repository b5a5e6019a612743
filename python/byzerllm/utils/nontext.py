"""Images and sounds inside of texts: `<_image_>data:image/png;base64,…</_image_>` and `<_audio_>…</_audio_>`."""

import base64
import json
import mimetypes
import os
import re
from dataclasses import dataclass, field
from typing import ClassVar

from byzerllm.errors import InvalidRequestError

_MARK = re.compile(r"<(/?)_(\w+)_>")


@dataclass
class Tag:
    """A piece of text between `<_name_>` and `</_name_>`, or the tags and texts inside of it."""

    start_tag: str
    end_tag: str
    content: "str | list[Tag]" = field(default_factory=list)
    parent: "Tag | None" = field(default=None, repr=False, compare=False)


class TagExtractor:
    """Finds the tags of a text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.root_tag = Tag("<_ROOT_>", "</_ROOT_>")

    def extract(self) -> Tag:
        """The tags as a tree below `<_ROOT_>`. What stands outside of tags is left out; what is not closed is an error."""
        self.root_tag = current = Tag("<_ROOT_>", "</_ROOT_>", [])
        start = 0
        for mark in _MARK.finditer(self.text):
            closing, name = mark[1], mark[2]
            if not closing:
                child = Tag(mark[0], f"</_{name}_>", [], current)
                assert isinstance(current.content, list)
                current.content.append(child)
                current, start = child, mark.end()
                continue
            if current.end_tag != mark[0]:
                raise InvalidRequestError(f"{mark[0]} at {mark.start()} closes nothing", param="text")
            if not current.content:
                current.content = self.text[start : mark.start()]
            assert current.parent is not None
            current = current.parent
        if current.parent is not None:
            raise InvalidRequestError(f"{current.start_tag} is never closed", param="text")
        return self.root_tag


class _Media:
    """A text that holds data of one kind between tags."""

    _kind: ClassVar[str]
    _fallback: ClassVar[str]

    def __init__(self, text: str) -> None:
        self.text = text

    @classmethod
    def _found(cls, text: str) -> list[re.Match[str]]:
        return list(re.finditer(f"<_{cls._kind}_>(.*?)</_{cls._kind}_>", text, re.DOTALL))

    def _has(self) -> bool:
        return bool(self._found(self.text))

    def to_content(self) -> str:
        """The JSON of a list of parts, `{"image": …}` (or `audio`) and `{"text": …}`; a text without any is
        itself.

        Raises:
            OSError: a tag holds the path of a file that cannot be read.

        Example:
            >>> Image("What is this?").to_content()
            'What is this?'
        """
        found = self._found(self.text)
        if not found:
            return self.text
        parts = [{self._kind: self._data_uri(one[1].strip())} for one in found]
        rest = re.sub(f"<_{self._kind}_>.*?</_{self._kind}_>", "", self.text, flags=re.DOTALL).strip()
        return json.dumps([*parts, *([{"text": rest}] if rest else [])], ensure_ascii=False)

    @classmethod
    def _data_uri(cls, data: str) -> str:
        """Data as a URI; a path is read."""
        if data.startswith(("data:", "http://", "https://")):
            return data
        kind = mimetypes.guess_type(data)[0] or cls._fallback
        with open(data, "rb") as file:
            return f"data:{kind};base64,{base64.b64encode(file.read()).decode('ascii')}"

    @classmethod
    def _paths(cls, text: str, to_base64: bool) -> list[str]:
        paths = [found[1].strip() for found in cls._found(text)]
        return [cls._data_uri(path) for path in paths] if to_base64 else paths

    @classmethod
    def _load(cls, path: str, only_content: bool) -> str:
        data = cls._data_uri(path)
        return data if only_content else f"<_{cls._kind}_>{data}</_{cls._kind}_>"

    @classmethod
    def _convert(cls, text: str, start_tag: str, end_tag: str) -> str:
        pattern = f"{re.escape(start_tag)}(.*?){re.escape(end_tag)}"
        return re.sub(pattern, lambda found: cls._load(found[1].strip(), False), text, flags=re.DOTALL)

    @classmethod
    def _save(cls, data_uri: str, output_path: str, auto_fix_suffix: bool) -> str:
        found = re.fullmatch(r"data:([\w.+-]+/[\w.+-]+);base64,(.*)", data_uri.strip(), re.DOTALL)
        if found is None:
            shown = data_uri if len(data_uri) <= 80 else f"{data_uri[:80]}…"
            raise InvalidRequestError(f"{shown!r} is no data URI in base64", param="data_uri")
        if auto_fix_suffix and (suffix := mimetypes.guess_extension(found[1])):
            output_path = os.path.splitext(output_path)[0] + suffix
        try:
            content = base64.b64decode(found[2], validate=True)
        except ValueError as error:
            raise InvalidRequestError(f"the data is no base64: {error}", param="data_uri") from None
        with open(output_path, "wb") as file:
            file.write(content)
        return output_path


class Image(_Media):
    """A text with images.

    Args:
        text: holds them as `<_image_>…</_image_>`, data URIs, URLs or paths.

    Example:
        >>> Image("<_image_>data:image/png;base64,AA==</_image_> What is this?").has_image()
        True
    """

    _kind = "image"
    _fallback = "image/jpeg"

    def has_image(self) -> bool:
        """Whether there is one.

        Example:
            >>> Image("What is this?").has_image()
            False
        """
        return self._has()

    @staticmethod
    def convert_image_paths_from(text: str, start_tag: str = "<img>", end_tag: str = "</img>") -> str:
        """The text with every path between two tags replaced by its image.

        Args:
            text: the text.
            start_tag: stands before a path.
            end_tag: stands after it.

        Raises:
            OSError: a file cannot be read.

        Example:
            >>> Image.convert_image_paths_from("No image here.")
            'No image here.'
        """
        return Image._convert(text, start_tag, end_tag)

    @staticmethod
    def extract_image_paths(text: str, to_base64: bool = False) -> list[str]:
        """What stands between the tags of images.

        Args:
            text: the text.
            to_base64: gives the images as data URIs, which reads those that are paths.

        Raises:
            OSError: a file cannot be read.

        Example:
            >>> Image.extract_image_paths("See <_image_>cat.png</_image_>.")
            ['cat.png']
        """
        return Image._paths(text, to_base64)

    @staticmethod
    def load_image_from_path(path: str, only_content: bool = False) -> str:
        """An image file as a tag.

        Args:
            path: the file.
            only_content: gives the data URI alone.

        Raises:
            OSError: the file cannot be read.

        Example:
            >>> Image.load_image_from_path("data:image/png;base64,AA==")
            '<_image_>data:image/png;base64,AA==</_image_>'
        """
        return Image._load(path, only_content)

    @staticmethod
    def save_image_to_path(data_uri: str, output_path: str, auto_fix_suffix: bool = False) -> str:
        """Writes a data URI into a file and returns its path.

        Args:
            data_uri: the image, in base64.
            output_path: the file.
            auto_fix_suffix: gives the path the suffix of the image's kind.

        Raises:
            InvalidRequestError: it is no data URI in base64.
            OSError: the file cannot be written.

        Example:
            >>> Image.save_image_to_path("data:image/png;base64,AA==", "cat.jpg", auto_fix_suffix=True)
            'cat.png'
        """
        return Image._save(data_uri, output_path, auto_fix_suffix)


class Audio(_Media):
    """A text with sounds.

    Args:
        text: holds them as `<_audio_>…</_audio_>`, data URIs, URLs or paths.

    Example:
        >>> Audio("<_audio_>data:audio/mpeg;base64,AA==</_audio_> Who speaks?").has_audio()
        True
    """

    _kind = "audio"
    _fallback = "audio/mpeg"

    def has_audio(self) -> bool:
        """Whether there is one.

        Example:
            >>> Audio("Who speaks?").has_audio()
            False
        """
        return self._has()

    @staticmethod
    def convert_audio_paths_from(text: str, start_tag: str = "<audio>", end_tag: str = "</audio>") -> str:
        """The text with every path between two tags replaced by its sound.

        Args:
            text: the text.
            start_tag: stands before a path.
            end_tag: stands after it.

        Raises:
            OSError: a file cannot be read.

        Example:
            >>> Audio.convert_audio_paths_from("No sound here.")
            'No sound here.'
        """
        return Audio._convert(text, start_tag, end_tag)

    @staticmethod
    def extract_audio_paths(text: str, to_base64: bool = False) -> list[str]:
        """What stands between the tags of sounds.

        Args:
            text: the text.
            to_base64: gives the sounds as data URIs, which reads those that are paths.

        Raises:
            OSError: a file cannot be read.

        Example:
            >>> Audio.extract_audio_paths("Hear <_audio_>cat.mp3</_audio_>.")
            ['cat.mp3']
        """
        return Audio._paths(text, to_base64)

    @staticmethod
    def load_audio_from_path(path: str, only_content: bool = False) -> str:
        """A sound file as a tag.

        Args:
            path: the file.
            only_content: gives the data URI alone.

        Raises:
            OSError: the file cannot be read.

        Example:
            >>> Audio.load_audio_from_path("data:audio/mpeg;base64,AA==", only_content=True)
            'data:audio/mpeg;base64,AA=='
        """
        return Audio._load(path, only_content)

    @staticmethod
    def save_audio_to_path(data_uri: str, output_path: str, auto_fix_suffix: bool = False) -> str:
        """Writes a data URI into a file and returns its path.

        Args:
            data_uri: the sound, in base64.
            output_path: the file.
            auto_fix_suffix: gives the path the suffix of the sound's kind.

        Raises:
            InvalidRequestError: it is no data URI in base64.
            OSError: the file cannot be written.

        Example:
            >>> Audio.save_audio_to_path("data:audio/mpeg;base64,AA==", "cat.mp3")
            'cat.mp3'
        """
        return Audio._save(data_uri, output_path, auto_fix_suffix)
