"""The fault campaign: a sale on real processes, everything broken in turn, and the books checked.

`stage` runs the stores, two API processes and two of each worker, with a `proxy` on every way to a
store; the `crowd` buys, pays, presses twice and hangs up, and writes down each word it was told
(`history`); `faults` break things and mend them; a `watcher` looks into both stores all the while;
and when all is quiet again `rules` hold the history against the stores.
"""
