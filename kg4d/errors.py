"""The one exception for requests that cannot be served: the command line turns it into one line and exit status 2."""


class InputError(ValueError):
    """A file, key or value that a person gave is wrong.

    Attributes:
        where: The file or key at fault.
        what: What is wrong with it.
        remedy: What to do about it.

    >>> str(InputError("photo.png", "holds no image", "give a PNG, JPEG or WebP file"))
    'photo.png: holds no image (give a PNG, JPEG or WebP file)'
    """

    def __init__(self, where: object, what: str, remedy: str) -> None:
        super().__init__(f"{where}: {what} ({remedy})")
        self.where = where
        self.what = what
        self.remedy = remedy

    def __reduce__(self) -> tuple[type["InputError"], tuple[object, str, str]]:
        """Rebuild from the three arguments, so that the error survives a worker process."""
        return type(self), (self.where, self.what, self.remedy)
