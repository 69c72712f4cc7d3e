"""The orchestrator under every fault: its real code in virtual time, one seam through which all passes.

faults      what can go wrong at a crossing of the seam, and schedules of it, as text
seam        the crossings of one process: numbers them, and has the planned faults happen
ways        the orchestrator's ports, each call of which crosses the seam
ledgers     the sellers and the payment provider, with books that the invariants read
ours        our own books, in memory or in PostgreSQL, read after every change
invariants  I1 to I12, each by itself, and that what is sent is sent in time, by one who may
hands       what people do by hand, operators among them
others      who does so when, the provider's events and the reconciler
telling     customers' webhooks, and the notifier's way to them
scenarios   who sells what at which price, and what the customer does
world       a run of a scenario under a schedule
bugs        defects planted into the real code, each of which must be caught
replay      one schedule again, step by step, in memory or over PostgreSQL
explore     all single and double faults, and deeper schedules by seed
"""
