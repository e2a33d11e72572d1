"""Seeds that once failed, and what they showed: played again by ``--corpus`` and by one test.

What a seed draws changes whenever the simulator learns a new fault, so that an old seed need not
show its fault again; the case told by hand in `tests.unit.test_node_mends` does. Here the seeds
stay for the company they keep: each once went where nothing else had gone.
"""

from __future__ import annotations

from typing import Final

ONCE_FAILED: Final[dict[int, str]] = {
    497: "two let one replica go at once, and a report was older than what its sender fetched",
    867: "a paused node found a minute of old heartbeats and thought its own clock wrong",
    3303: "a snapshot request came twice, and two freezes were mixed in one transfer",
    7190: "a seal named what its issuer's lost disk had taken along, and was waited for for ever",
    20334: "a snapshot hid that a gate had moved, and it was moved again at once",
    40102: "an orphan recorded a stay anew that this very lot had known and closed",
    40338: "restarted members' late hellos made their clocks look slow",
    70149: "a new node of a name, with a clock put back, died of what was said of the one before",
    26220397: "who held void events was told so by a hello only, and greeted nobody any more",
    60113348: "who came back claimed a gate of one it had just met, whose claim had left the logs",
    64502571: "a claim that had left the logs was known by heartbeats, and two served its gate",
    64502667: "a barrier had seen a claim of a lot that was no more, and opened for nobody",
    64503081: "who missed a goodbye waited for ever for somebody else to suspect the one that left",
    64503524: "two had changed places, and a third greeted neither where it had known the other",
    64505178: "who was never answered took a new id, and nobody let go of the old one",
    80292865: "who left a view that a healed partition had just ended was judged as if it stood",
    91000973: "an owner that nobody there had met released its gates, and that was lost as well",
    92000360: "two had changed places, and a third heard one of them ask and never greeted it",
    92001654: "a gate was given to one that left, and another had claimed it in no view with these",
    93000493: "a request that waited was carried out after a pause, when nobody waited any more",
    740000129: "two pairs met crosswise, and neither death that both waited for was confirmed",
    770000393: "an owner that nobody there had met asked and asked, and was taken for nobody",
}
"""Seed -> what it showed, by number."""
