"""JSON as text, from the standard library's encoder in C, made once.

`json.JSONEncoder.encode` makes one anew for each value, which takes longer than to encode a small one.
"""

import json
import json.encoder
from collections.abc import Callable


def encoder(
    *,
    default: Callable[[object], object] | None = None,
    ascii_only: bool = True,
    allow_nan: bool = True,
    space: str = "",
) -> Callable[[object], str]:
    """What turns a value into JSON text. A circular value is a RecursionError.

    Args:
        default: what to encode in place of a value that JSON has nothing for; None refuses it with a TypeError.
        ascii_only: escape all other characters.
        allow_nan: write NaN and infinities as Python does; otherwise they are a ValueError.
        space: after `,` and `:`.
    """
    colon, comma = f":{space}", f",{space}"
    plain = json.JSONEncoder(
        check_circular=False, ensure_ascii=ascii_only, allow_nan=allow_nan, separators=(comma, colon), default=default
    )
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return plain.encode
    quote = json.encoder.encode_basestring_ascii if ascii_only else json.encoder.encode_basestring
    chunks = make(None, plain.default, quote, None, colon, comma, False, False, allow_nan)
    join = "".join
    return lambda value: join(chunks(value, 0))
