"""Names that become folders."""


def is_folder_name(text: str) -> bool:
    """Whether a text can name a folder anywhere and leads nowhere else: letters, digits, `_` and `-`.

    >>> [is_folder_name(text) for text in ("fox_2-b", "", "..", "a/b", "a b")]
    [True, False, False, False, False]
    """
    return text.replace("_", "").replace("-", "").isalnum()
