"""What limited a run: the stages in the order in which a request meets them, and which was full.

`stages` is what is asked of each, in PromQL (the Bottleneck dashboard asks the same), `reading`
asks a Prometheus, `engine` judges, `text` prints.
"""

from onsale.bottleneck.engine import Verdict, judge
from onsale.bottleneck.reading import read_verdict
from onsale.bottleneck.text import render

__all__ = ["Verdict", "judge", "read_verdict", "render"]
