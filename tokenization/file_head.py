"""What the first bytes of a file tell, before FFmpeg sees it."""

from __future__ import annotations

LENGTH = 4096  # bytes to read


def is_text(head: bytes) -> bool:
    """UTF-8 text without NUL bytes: no video or image that can be decoded is."""
    if b"\0" in head or head.startswith(b"YUV4MPEG2"):
        return False
    for cut in range(4):  # the head may end inside a UTF-8 character
        try:
            head[: len(head) - cut].decode("utf-8")
        except UnicodeDecodeError:
            continue
        return True
    return False


def declared_size(head: bytes) -> int:
    """Bytes that a RIFF (AVI, WebP) or Matroska (WebM) file says it has; 0 if it does not."""
    if head.startswith(b"RIFF"):
        size = int.from_bytes(head[4:8], "little")
        return 0 if size == 0xFFFFFFFF else 8 + size  # all ones: it was written to a pipe
    segment = head.find(b"\x18\x53\x80\x67", 4)
    if head.startswith(b"\x1a\x45\xdf\xa3") and 0 < segment < len(head) - 12:
        first = head[segment + 4]
        length = 9 - first.bit_length()  # leading zeros tell how many bytes the number has
        digits = head[segment + 4 : segment + 4 + length]
        size = int.from_bytes(digits, "big") & ((1 << 7 * length) - 1)
        if size < (1 << 7 * length) - 1:  # all ones: not known when it was written
            return segment + 4 + length + size
    return 0
