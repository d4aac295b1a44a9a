"""Facts of a free clinical note, for the attributes of C2FVL: only what it says outright, everything else unknown.

A sentence falls into runs of words that the reader knows; any other word ends one. A run counts when it names a
finding (opacity, consolidation, infiltrate, ground glass, pneumonia, infection), and the places in it are that
finding's. Words that would belong to the unknown word after them ("a small right effusion") are dropped. Sentences that
doubt, look back, tell of another examination, or of what is gone say nothing; what is denied says nothing either, since
a lung without consolidation may hold another opacity. Lobes count as thirds of their lung, as in the published
sentences. What two sentences contradict is unknown. The reader is ours; the original has none.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from preceptor.text.attributes import ATTRIBUTES, NUMBERS, THIRDS, parse_attributes

Third = tuple[str, str]
"""("l" or "r", one of THIRDS)"""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


SIDE = {"left": "l", "lt": "l", "right": "r", "rt": "r"}
BOTH = _words("both bilateral bilaterally")
PLACE = {
    "upper": "upper", "apical": "upper", "apex": "upper", "apices": "upper",
    "middle": "middle", "mid": "middle", "midzone": "middle", "midzones": "middle",
    "lower": "lower", "basal": "lower", "base": "lower", "bases": "lower", "basilar": "lower",
}  # fmt: skip
HEAD = _words("lung lungs lobe lobes zone zones field fields third thirds hemithorax apex apices base bases midzone")
WHOLE = _words("all entire whole throughout")
FINDING = _words(
    "opacity opacities opacification opacifications consolidation consolidations infiltrate infiltrates infiltration "
    "infiltrations groundglass ggo ggos shadowing pneumonia bronchopneumonia infection"
)
ILLNESS = _words("pneumonia bronchopneumonia infection")
"""Findings that are not counted."""
COUNTED = (FINDING - ILLNESS) | _words("area areas focus foci")
EXCEPT = _words("except excepting excluding sparing")
DENIED = _words("no not without nor neither absence lack")
ALLOWED_AGAIN = _words("but however there yet though although whereas while")
DOUBTED = _words(
    "may might could would should if possible possibly probable probably likely suspected suspicion suspicious query "
    "questionable equivocal exclude history previous previously prior risk differential cannot untreated absent "
    "resolved resolving resolution cleared clearing absorbed disappeared negative free longer normalised normalized"
)
"""Words after which a sentence says nothing certain of this picture."""
ELSEWHERE, FILM = _words("ct cts hrct tomography mri ultrasound"), _words("radiograph radiographs film films cxr xray")
ENDS = _words(
    "as which that suggesting suggestive consistent compatible representing obscuring extending measuring due "
    "secondary on from after for including less than during ( ) :"
)
"""Words that end a run without claiming its last place for themselves."""
LINKS = _words(
    "in of at within involving along and with to is are was were be being seen noted noticed present shows show "
    "showing demonstrates demonstrating reveals revealing has have also , or there worse more most mainly mostly "
    "predominantly"
)
ADJECTIVES = _words(
    "a an the patchy diffuse dense small large extensive multifocal multiple focal single solitary alveolar air space "
    "airspace interstitial reticular nodular hazy faint ill defined peripheral central perihilar subpleural "
    "coalescent confluent coarse mild moderate severe linear rounded round symmetric symmetrical asymmetric "
    "asymmetrical some few several widespread scattered vague subtle new increasing persistent progressive worsening "
    "lobar panlobar segmental pulmonary parenchymal covid viral bacterial infectious inflammatory homogeneous "
    "homogenous heterogeneous infected area areas focus foci vertical lobular associated predominant predominance "
    "prominent evident distribution pattern patterns region regions part parts portion portions"
)
_SHORT = {
    "lul": "left upper lobe", "lll": "left lower lobe", "rul": "right upper lobe", "rml": "right middle lobe",
    "rll": "right lower lobe", "lingula": "left middle lobe", "lingular": "left middle lobe",
    "bibasal": "both lower", "bibasilar": "both lower", "biapical": "both upper",
}  # fmt: skip

_MADE_ONE = (
    (r"\bground\s+glass\b", "groundglass"),
    (r"\bx\s?rays?\b", "xray"),
    (r"\b(except|excepting|sparing)\s+(?:for|of)\b", r"\1"),
    (r"\bcovid\s*19\b", "covid"),
    (r"\(\s*(?:\w|arrow(?:s|heads?)?)\s*\)", " "),
)
"""Wordings of several words, and marks that only point at the picture, and what is read in their place."""

_CLEAR_PLACE = r"(?:(left|right|both|bilateral)\s+)?(?:(upper|middle|mid|lower)\s+)?(?:lungs?|hemithorax|lobes?|zones?)"
_CLEAR = re.compile(
    rf"\b((?:rest of the|remainder of the|remaining|other)\s+)?{_CLEAR_PLACE}(?:\s+(?:fields?|zones?))?"
    r"\s+(?:(?:is|are|was|were|appears?|remains?)\s+)?(?:clear|normal|unremarkable)"
    r"(?=\s*(?:$|,|\)|and\b|but\b|without\b|bilaterally\b))"
)
_ALL_CLEAR = re.compile(
    r"^(?:(?:the|both|chest)\s+)*(?:clear|normal)\s+lungs?(?:\s+fields)?\s*(?:$|,|bilaterally)"
    r"|\bno\s+(?:thoracic|pulmonary|lung|chest|parenchymal)\s+(?:abnormalit(?:y|ies)|infections?)\b"
)


@dataclass
class _Said:
    """What the sentences say so far: thirds that are infected, spared or clear, and the sides that are infected."""

    infected: set[Third] = field(default_factory=set)
    spared: set[Third] = field(default_factory=set)
    sides: set[str] = field(default_factory=set)
    clear: list[frozenset[Third]] = field(default_factory=list)
    one_sided: bool = False
    runs: int = 0
    counts: list[int] = field(default_factory=list)


def parse_note(text: str) -> dict[str, int] | None:
    """The attributes that a note says, by name; those that it does not say are left out. None where it says none.

    A sentence of the published form is read as such.
    """
    whole = parse_attributes(text)
    if whole is not None:
        return whole
    said, elsewhere = _Said(), False
    for tokens, certain in _sentences(text):
        found = next((at for at, token in enumerate(tokens) if token in FINDING), len(tokens))
        before = tokens[:found]
        if any(token in ELSEWHERE for token in before):
            elsewhere = True
        if any(token in FILM for token in before):
            elsewhere = any(token in ELSEWHERE for token in before)
        if not certain or elsewhere or DOUBTED & set(tokens):
            continue
        _read_clear(" ".join(tokens), said)
        for run in _runs(tokens):
            _read_run(run, said)
    return _facts(said) or None


def _sentences(text: str) -> Iterator[tuple[list[str], bool]]:
    """The words of each sentence, and whether it is no question."""
    plain = re.sub(r"[-–/]", " ", text.lower())
    for pattern, word in _MADE_ONE:
        plain = re.sub(pattern, word, plain)
    for part in re.finditer(r"((?:[^.;!?\n]|\.(?=\d))*)([.;!?\n]|$)", plain):
        words = re.findall(r"[a-z]+|\d+(?:\.\d+)?|[,():]", part[1])
        yield [each for word in words for each in _SHORT.get(word, word).split()], part[2] != "?"


def _runs(tokens: list[str]) -> Iterator[list[str]]:
    """The runs of known words that name a finding, without what belongs to an unknown word or is denied."""
    run: list[str] = []
    denied = False
    for token in [*tokens, ":"]:
        if token in DENIED:
            if token != "not":  # "consolidation in the left lung is not seen"
                yield from _with_finding(run)
            run, denied = [], True
        elif token in ALLOWED_AGAIN:
            yield from _with_finding(run)
            run, denied = [], False
        elif denied:
            continue
        elif token in ENDS:
            yield from _with_finding(run)
            run = []
        elif _known(token):
            run.append(token)
        else:
            while run and run[-1] not in LINKS and run[-1] not in FINDING and run[-1] != "bilaterally":
                run.pop()
            yield from _with_finding(run)
            run = []


def _with_finding(run: list[str]) -> Iterator[list[str]]:
    if any(token in FINDING for token in run):
        yield run


def _known(token: str) -> bool:
    sets = (SIDE, BOTH, PLACE, HEAD, WHOLE, FINDING, EXCEPT, LINKS, ADJECTIVES, NUMBERS)
    return any(token in known for known in sets) or token in ("unilateral", "unilaterally") or token.isdigit()


def _read_run(run: list[str], said: _Said) -> None:
    """Add what one run says: a place is a side, thirds and a noun, in any order that English has."""
    said.runs += not FINDING & set(run) <= ILLNESS
    sided = any(token in SIDE for token in run)
    both = any(token in BOTH for token in run)
    sides: set[str] = set()
    recent: list[str] = []  # thirds of the place under way, whose side may follow
    whole = closed = spared = False

    def place(thirds: list[str], where: set[str]) -> None:
        target = said.spared if spared else said.infected
        target |= {(side, third) for side in where for third in thirds}
        if not spared:
            said.sides |= where

    for at, token in enumerate(run):
        if token in HEAD and run[at + 1 : at + 2] and run[at + 1] in HEAD:
            continue  # "lung zone" is one noun
        before = [word for word in run[:at] if word != "the"][-1:]
        if token in SIDE:
            side = {SIDE[token]}
            if before == ["of"] and closed and not sides:
                place(recent, side)
                recent = []
            joins = sides and not closed and not recent
            sides, closed = (sides | side if joins else side), False
        elif token in BOTH:
            sides, closed = {"l", "r"}, False
            if not spared and not sided:
                said.sides |= sides
        elif token in PLACE:
            if closed:
                sides, recent, closed = set(), [], False
            thirds = [PLACE[token]]
            if before == ["to"] and recent:
                ends = sorted((THIRDS.index(recent[-1]), THIRDS.index(thirds[0])))
                thirds = list(THIRDS[ends[0] : ends[1] + 1])
            recent += thirds
            place(thirds, sides or ({"l", "r"} if both and not sided else set()))
            closed = token in HEAD
        elif token in WHOLE:
            whole, sides, recent, closed = True, (sides if before and before[0] in BOTH else set()), [], False
        elif token in HEAD or token in FINDING:
            if token in HEAD and whole and not recent:
                every = sides or ({"l", "r"} if token.endswith("s") or both else set())
                place(list(THIRDS), every)
            elif not spared:
                said.sides |= sides
            elif token in ("lung", "lungs", "hemithorax") and not recent:
                place(list(THIRDS), sides)
            whole, closed = False, True
        elif token in EXCEPT:
            spared, sides, recent, closed = True, set(), [], False
        elif token.startswith("unilateral"):
            said.one_sided = True
    said.counts += _counts(run)


def _counts(run: list[str]) -> Iterator[int]:
    """The numbers of findings: "two patchy opacities", "a single consolidation"."""
    for at, token in enumerate(run):
        if token in ("single", "solitary"):
            number = 1
        elif token in NUMBERS:
            number = NUMBERS.index(token)
        elif token.isdigit() and int(token) < len(NUMBERS):
            number = int(token)
        else:
            continue
        following = next((word for word in run[at + 1 :] if word in COUNTED or word not in ADJECTIVES), "")
        if following in COUNTED:
            yield number


def _read_clear(sentence: str, said: _Said) -> None:
    every = frozenset((side, third) for side in "lr" for third in THIRDS)
    if _ALL_CLEAR.search(sentence):
        said.clear.append(every)
    for match in _CLEAR.finditer(sentence):
        rest, side, third = match.groups()
        if rest or not (side or match[0].startswith("lungs")):
            continue
        sides = SIDE.get(side, "lr")
        thirds = [PLACE[third]] if third else THIRDS
        said.clear.append(frozenset((one, name) for one in sides for name in thirds))


def _facts(said: _Said) -> dict[str, int]:
    infected, spared, doubtful = set(said.infected), set(said.spared), set(said.infected & said.spared)
    for scope in said.clear:
        lungs = {side for side in "lr" if all((side, third) in scope for third in THIRDS)}
        if scope & infected or lungs & said.sides:
            doubtful |= scope
        else:
            spared |= scope
    lung_clear = {side for side in "lr" if all((side, third) in spared - doubtful for third in THIRDS)}
    facts: dict[str, int] = {}
    number = said.counts[0] if len(said.counts) == 1 == said.runs else None
    both = said.sides == {"l", "r"}
    one = bool(lung_clear) or said.one_sided or (number == 1 and len(said.sides) == 1)
    if both != one and not (both and doubtful):
        facts["bilateral"] = int(both)
    if lung_clear == {"l", "r"}:
        facts["number"] = 0
    elif number is not None:
        facts["number"] = number
    for side in "lr":
        for third in THIRDS:
            here = (side, third)
            if here in infected | spared and here not in doubtful:
                facts[side + third] = int(here in infected)
    return {name: facts[name] for name in ATTRIBUTES if name in facts}
