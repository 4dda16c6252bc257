"""The ranking path, one file per stage, in this order:

    request ─ normalize ─ cache ─ (queue) ─ retrieve: lexical ─ embed ─ retrieve: dense ─ fuse ─ features ─ rerank
            ─ calibrate ─ explain ─ respond

`searcher.py` is the place to start: it runs the stages for one version. `service.py` stands in front of it: caches,
deadlines, which version is served.
"""
