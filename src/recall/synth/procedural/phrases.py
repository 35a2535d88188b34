"""The words that questions are put in: at least six ways for each operator.

What stands in braces is filled in: `{many}` a plural noun phrase with its article, `{one}`, `{left}`, `{right}`
singular ones, `{that}` a relative clause, `{noun}` what a column is called, `{more}` and
`{most}` as the kind of value wants.
"""

Ways = tuple[str, ...]

REQUESTS: Ways = (
    "What is {}?", "Find {}.", "Tell me {}.", "Give {}.", "I need {}.", "Work out {}.", "Please determine {}.",
    "Can you find out {}?", "Report {}.",
)  # fmt: skip
CLAUSE_REQUESTS: Ways = (
    "Find out {}.", "Tell me {}.", "I need to know {}.", "Work out {}.", "Please determine {}.", "Can you say {}?",
)  # fmt: skip
"""For what begins with `how`, `what` or `which`."""
PLAIN_REQUESTS: Ways = ("What is {}?", "Find {}.", "Tell me {}.")
LISTS: Ways = (
    "List {}.", "Which are {}? List them all.", "Name {}.", "Give me a list of {}.", "I need a full list of {}.",
    "Find {} and list them.", "Enumerate {}.",
)  # fmt: skip

MEMBERS: Ways = (
    "{plural} whose {noun} is {one}", "{plural} for which the {noun} is {one}", "{plural} that have {one} as {noun}",
    "{plural} with {one} as {noun}", "{plural} having {one} as their {noun}",
)  # fmt: skip
"""Beside the skin's own phrase. The first two end with the entity, so that it may be described at length."""
LABELLED: Ways = (
    "whose {noun} is {word}", "for which the {noun} is {word}", "whose {noun} is \"{word}\"",
    "with \"{word}\" as {noun}", "that have \"{word}\" as their {noun}",
)  # fmt: skip
"""Beside the skin's own phrase."""
BOUNDED: Ways = (
    "whose {noun} is {more} than {bound}{unit}", "whose {noun} is {beyond} {bound}{unit}",
    "with {a_noun} {beyond} {bound}{unit}", "that have {a_noun} {beyond} {bound}{unit}",
    "for which the {noun} is {more} than {bound}{unit}", "whose {noun} lies {beyond} {bound}{unit}",
)  # fmt: skip
BETWEEN: Ways = (
    "the {plural} whose {noun} lies between {low} and {high}{unit}",
    "the {plural} with {a_noun} from {low} to {high}{unit}",
    "the {plural} whose {noun} is at least {low} and at most {high}{unit}",
    "the {plural} whose {noun} is neither {below} {low} nor {above} {high}{unit}",
    "the {plural} in the range from {low} to {high}{unit} by {noun}",
    "the {plural} that have {a_noun} between {low} and {high}{unit}",
)  # fmt: skip
BETWEEN_DAYS: Ways = (
    "the {plural} whose {noun} lies between {low} and {high}", "the {plural} with {a_noun} from {low} to {high}",
    "the {plural} whose {noun} is neither {below} {low} nor {above} {high}",
    "the {plural} whose {noun} falls between {low} and {high}",
    "the {plural} whose {noun} is in the time from {low} to {high}",
    "the {plural} that have {a_noun} between {low} and {high}",
)  # fmt: skip
BOTH: Ways = (
    "{left} that are also among {right}", "those of {left} that are among {right} as well",
    "the {plural} found both among {left} and among {right}", "the {plural} that count among {left} and also {right}",
    "{left}, as far as they are also among {right}", "such of {left} as are also among {right}",
)  # fmt: skip
BOTH_APART: Ways = (
    "Compare {left} with {right} and keep the {plural} that are in both groups.",
    "Take the {plural} that are in both of two groups: {left}, and {right}.",
    "Look at {left} and at {right}, but only at what is in both groups.",
)
TARGETS: Ways = (
    "the different {plural} that are the {noun} of any of {many}",
    "the distinct {plural} that occur as the {noun} of {many}",
    "the {plural} that are the {noun} of at least one of {many}",
)
TARGETS_APART: Ways = (
    "Find the {noun} of each of {many}, and drop repeats.",
    "Collect the {plural} that occur as the {noun} of {many}, each of them once.",
    "For each of {many}, look up the {noun}; count no {entity} twice.",
    "Take the {noun} of every one of {many} and leave out repeats.",
)
KEEPS: Ways = (
    "Take {many} and keep those {that}.", "Look at {many}, but only at those {that}.",
    "Of {many}, consider those {that}.", "Start from {many} and leave out all but those {that}.",
    "Among {many}, only those {that} matter.", "Consider {many}, restricted to those {that}.",
)  # fmt: skip
SETS: Ways = (
    "Take {many}.", "Consider {many}.", "Look at {many}.", "Start from {many}.", "Begin with {many}.",
    "First find {many}.",
)  # fmt: skip
STEPS: Ways = (
    "Take {one}.", "Look up {one}.", "Find {one}.", "Start from {one}.", "Begin with {one}.", "First find {one}.",
    "Consider {one}.",
)  # fmt: skip

TOPS: Ways = (
    "the one with the {most} {noun} among {many}", "whichever of {many} has the {most} {noun}",
    "that one of {many} whose {noun} is the {most}", "the one of {many} with the {most} {noun}",
)  # fmt: skip
TOPS_APART: Ways = (
    "Among {many}, pick the one with the {most} {noun}.",
    "Look at {many} and choose the one whose {noun} is the {most}.",
    "Of {many}, choose the one with the {most} {noun}.", "Choose the one of {many} with the {most} {noun}.",
    "Compare {many} by {noun} and choose the one that has the {most}.",
    "From {many}, select the one whose {noun} is the {most}.",
)  # fmt: skip
WHICHEVERS: Ways = (
    "whichever of {left} and {right} has the {more} {noun}", "the one of {left} and {right} with the {more} {noun}",
    "that one of {left} and {right} whose {noun} is {more}", "the {more} of {left} and {right} by {noun}",
)  # fmt: skip
WHICHEVERS_APART: Ways = (
    "Compare {left} with {right} and choose the one whose {noun} is {more}.",
    "Of {left} and {right}, choose the one with the {more} {noun}.",
    "Choose whichever of {left} and {right} has the {more} {noun}.",
    "Between {left} and {right}, pick the one with the {more} {noun}.",
    "Either {left} or {right} has the {more} {noun}; choose that one.",
    "Choose {left} or {right}, depending on which has the {more} {noun}.",
)
CHOICES: Ways = (
    "If {left} is {more} than {right}, choose {then}; otherwise choose {otherwise}.",
    "Check whether {left} is {more} than {right}: if so, go on with {then}, if not, with {otherwise}.",
    "Choose {then} if {left} is {more} than {right}, and {otherwise} if it is not.",
    "Is {left} {more} than {right}? If it is, take {then}; if it is not, take {otherwise}.",
    "Take {otherwise}, unless {left} is {more} than {right}: in that case take {then}.",
    "When {left} turns out {more} than {right}, use {then}; when it does not, use {otherwise}.",
)

TOTALS: Ways = (
    "the total {noun} of {many}", "the sum of the {noun} over {many}", "the combined {noun} of {many}",
    "the overall {noun} of {many}", "the {noun} of {many} taken together", "the {noun} added up over {many}",
    "what comes of adding up the {noun} of each of {many}",
)  # fmt: skip
TIMES: Ways = (
    "{number} times {each}", "{each} times {number}", "{each} multiplied by {number}",
    "the product of {number} and {each}", "{number} multiplied by {each}",
    "how much {each} comes to when it is counted once for each of {many}",
)  # fmt: skip
SUMS: Ways = (
    "the sum of {left} and {right}", "{left} plus {right}", "{left} and {right} added together",
    "what {left} and {right} make together", "the total of {left} and {right}", "{left} added to {right}",
)  # fmt: skip
DIFFERENCES: Ways = (
    "the difference between {left} and {right}", "by how much {left} and {right} differ",
    "how far {left} and {right} are apart", "the gap between {left} and {right}",
    "the absolute difference of {left} and {right}", "how much separates {left} from {right}",
)  # fmt: skip
DAYS: Ways = (
    "the number of days between {left} and {right}", "how many days lie between {left} and {right}",
    "how many days there are from {left} to {right}, or the other way round",
    "how many days apart {left} and {right} are",
    "the distance in days between {left} and {right}", "how many days separate {left} from {right}",
)  # fmt: skip
LATER: Ways = (
    "the date {days} days after {day}", "the day that comes {days} days after {day}",
    "what date it is {days} days after {day}", "the date of the day {days} days past {day}",
    "which date falls {days} days after {day}", "the date {days} days later than {day}",
)  # fmt: skip
CONVERSIONS: Ways = (
    "{source}, converted into {currency} and rounded to two decimals",
    "how much {source} is in {currency}, to two decimals", "what {source} comes to in {currency}, to two decimals",
    "the worth in {currency} of {source}, rounded to two decimals",
    "{source}, expressed in {currency} with two decimals",
    "the amount of {currency}, rounded to two decimals, that {source} buys",
)  # fmt: skip
RESCALES: Ways = (
    "{source} in {unit}", "{source}, expressed in {unit}", "{source}, converted into {unit}",
    "how many {unit} {source} comes to", "what {source} is in {unit}", "{source}, measured in {unit}",
)  # fmt: skip

MOVES: Ways = (
    "First make {target} the {noun} of {one}.", "Set the {noun} of {one} to {target}.",
    "Give {one} a new {noun}: {target}.", "Change the {noun} of {one} to {target}.",
    "See to it that the {noun} of {one} is {target}.", "Let {target} be the {noun} of {one} from now on.",
)  # fmt: skip
ACTS: Ways = (
    "Change {what} from {before} to {after}.", "First, change {what} from {before} to {after}.",
    "Turn the {noun} of {what} from {before} to {after}.", "{verb} {what}, so that the {noun} becomes {after}.",
    "See to it that the {noun} of {what} goes from {before} to {after}.", "{verb} {what}: from {before} to {after}.",
)  # fmt: skip
AFTERWARDS: Ways = (
    "Then {}", "After that, {}", "Once that is done, {}", "With this in place, {}", "Afterwards, {}", "Next, {}",
)  # fmt: skip
UNKNOWN: Ways = (
    "If the tools cannot tell, answer: cannot be determined.",
    "Should it be impossible to find out, say: cannot be determined.",
    "Where no tool gives what is needed, the answer is: cannot be determined.",
    "If there is no way to find out, the answer is: cannot be determined.",
    "Say: cannot be determined, if the tools do not give what is needed.",
    "Without a tool that tells what is needed, answer: cannot be determined.",
)
