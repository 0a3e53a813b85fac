"""Names that become folders."""

import re
from pathlib import Path


def is_folder_name(text: str) -> bool:
    """Whether a text can name a folder anywhere and leads nowhere else: letters, digits, `_` and `-`.

    >>> [is_folder_name(text) for text in ("fox_2-b", "", "..", "a/b", "a b")]
    [True, False, False, False, False]
    """
    return text.replace("_", "").replace("-", "").isalnum()


def name_of_scene(scene: str) -> str:
    """Short name of a scene: the one written before it, else what comes last in it, as a folder name.

    Args:
        scene: As `scene` or an entry of `scenes` names it, `NAME=SCENE` included.

    >>> [name_of_scene(scene) for scene in ("synthetic:walker", "data/fox/", "clips/my dog.mp4", "second=data/fox")]
    ['walker', 'fox', 'my-dog', 'second']
    >>> name_of_scene("gltf:data/Fox.glb#Run")
    'Fox-Run'
    """
    name, path = _parts(scene)
    if name:
        return name
    kind, colon, rest = path.partition(":")
    place, _, part = (rest if colon and is_folder_name(kind) else path).partition("#")
    last = Path(place).resolve() if place in ("", ".", "..") else Path(place)
    words = (last.stem if last.suffix else last.name, part)
    return "-".join(slug(word) for word in words if word)


def path_of_scene(scene: str) -> str:
    """The scene itself, without the name that may be written before it.

    >>> path_of_scene("second=data/fox"), path_of_scene("data/fox")
    ('data/fox', 'data/fox')
    """
    return _parts(scene)[1]


def slug(text: str) -> str:
    """A text with each run of characters that a folder name cannot have turned into one hyphen.

    >>> slug("wgf.weight=1e-05, a+d")
    'wgf-weight-1e-05-a-d'
    """
    return re.sub(r"[^\w-]+", "-", text).strip("-")


def _parts(scene: str) -> tuple[str, str]:
    name, equals, path = scene.partition("=")
    return (name, path) if equals and is_folder_name(name) else ("", scene)
