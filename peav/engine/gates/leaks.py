"""What leaks of a captioner's task into captions, as patterns with what to call them."""

from __future__ import annotations

import re

#: Numbers by which models say how sure they are, in digits and in words.
_SCORES = (
    r"\d\s*%",
    r"\bper ?cent(?:age)?\b",
    r"(?<![\d.,])[01]?\.\d+\b",
    r"(?<![\d.,])0,\d+\b",
    r"\b\d+ ?/ ?\d+\b",
    r"\bout of (?:five|ten|a hundred|\d+)\b",
    r"\bscores?:? (?:of )?\d",
)

#: Markup, lists, addresses, and characters that no sentence has.
_MARKUP = (
    r"[\[\]{}<>|`*#_@\\]",
    r"&#?\w+;",
    r"https?:|\bwww\.",
    r"^\s*(?:[-\u2013\u2014\u2022+]|\d{1,2}[.)]) ",
)

#: Names of fields, as JSON and chats have them.
_FIELDS = (
    r"^[\"']?(?:audio|video|audio[-_ ](?:visual|video)|caption|description|answer|response|output|result|summary|title|notes?|text|heard"
    r"|seen|sounds?|transcript|[a-z]+ captions?)[\"']? ?:",
    r"\b(?:assistant|user|human|system|model) ?:",
)

_MEDIUM = r"(?:audio|video|clip|recording|file|input|footage)"
_SHOWS = r"(?:contains?|features?|shows?|includes?|captures?|consists?|depicts?)"

#: Words about the task in place of what is heard and seen.
_TASK = (
    r"\b(?:probabilit\w+|likelihood|certainty|confidence|labels?|captions?|tags?|tagged|transcripts?|metadata|json|output|prompt)\b",
    rf"\b(?:the|this) (?:provided |given |sound |image )?{_MEDIUM}(?: {_MEDIUM})?s? (?:{_SHOWS}|is|has|begins?|appears?)\b",
    rf"\b(?:the|this) (?:sound|image|picture|scene|segment|sample) {_SHOWS}\b",
    rf"\bin (?:the|this) {_MEDIUM}\b",
    rf"\bno {_MEDIUM} (?:is |was )?(?:provided|given|available)\b",
    r"\bbased on the|\bthe provided\b|\bas requested\b|\baccording to the\b|\bthe notes (?:say|mention|state|describe)\b|\bword count\b",
)

#: How assistants begin, end and excuse themselves.
_ASSISTANT = (
    r"^(?:sure|absolutely|certainly|of course|okay|ok|alright|great|understood|got it|no problem|yes|no)\b(?: thing)?[,!.:]",
    r"\bhere(?: is|'s| are) (?:a|an|the|your|what|my|some)\b|\bhere you (?:go|are)\b",
    r"\bas an? (?:ai|assistant|(?:large )?language model)\b|\blanguage model\b|\ban? (?:ai|virtual) (?:assistant|model)\b",
    r"\bi(?:'m| am) (?:just |only )?an? (?:assistant|ai|model)\b",
    r"\bi can(?:no|')t\b|\bi(?:'m| am) (?:unable|sorry|not able)\b|\bunable to (?:process|determine|hear|listen|identify|provide|access)\b",
    r"\b(?:not possible|impossible) to (?:determine|tell|say|describe|identify)\b|\bcannot (?:be determined|determine|identify)\b",
    r"\bsorry\b|\bplease (?:note|provide|let)\b|\blet me know\b|\bhope (?:this|that) helps\b|\bfeel free\b",
)

#: By what it is called, what is looked for in a text that :func:`plain` made even.
LEAKS = {
    "a number of a score": re.compile("|".join(_SCORES), re.IGNORECASE),
    "brackets or markup": re.compile("|".join(_MARKUP)),
    "the name of a field": re.compile("|".join(_FIELDS), re.IGNORECASE),
    "words about the task": re.compile("|".join(_TASK), re.IGNORECASE),
    "words of an assistant": re.compile("|".join(_ASSISTANT), re.IGNORECASE),
    "the word AI": re.compile(r"\bAI\b"),
}
