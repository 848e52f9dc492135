# SPDX-License-Identifier: Apache-2.0
"""The words that the detector is asked for, as numbers in CLIP's vocabulary (Radford et al. 2021), so that no tokenizer and none of its files are needed."""

from ...errors import Body4DError

VOCABULARY, CONTEXT = 49408, 32
START, END = 49406, 49407
WORDS = {"person": (2533,)}


def tokens(text: str) -> tuple[list[int], list[int]]:
    """CONTEXT token numbers and a mask, 1 where a token is read and 0 where it fills up. Raises Body4DError for a word that is not listed here."""
    if text not in WORDS:
        raise Body4DError(f'SAM 3 was asked for "{text}".', f"Ask for one of: {', '.join(WORDS)}.", "text_unknown")
    read = [START, *WORDS[text], END]
    fill = CONTEXT - len(read)
    return read + [END] * fill, [1] * len(read) + [0] * fill
