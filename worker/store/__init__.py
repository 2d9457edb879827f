"""The only place with queries: one function a transition, each taking its transaction's connection first.

`images` analysis of instances; `intake` what a received object becomes; `studies` closing and the claim for
reporting; `reports` revisions and eye results; `deliveries` the way to the destinations; `door` associations
and rejections; `processes` who runs; `leases` exclusive rights; `overview` what `status` shows.
"""
