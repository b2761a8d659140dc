"""The error of an image that cannot be used."""


class RejectedImageError(ValueError):
    """An image that cannot be used. `reason`: a fixed string, for counting; `detail`: the message of the decoder.

    Reasons: missing, empty, not an image, truncated, corrupt, too large, too small, extreme aspect, unsupported pixels,
    not a mask.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason, self.detail = reason, detail

    def __reduce__(self) -> tuple[type["RejectedImageError"], tuple[str, str]]:
        return RejectedImageError, (self.reason, self.detail)
