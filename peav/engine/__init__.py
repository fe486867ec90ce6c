"""The caption engine: from clips to captions of what is heard, what is seen, and both (docs/engine.md).

Stages are plugins that take columns of clips and return columns. A job runs them over the clips of a manifest, part by part: by one
process or many, on one machine or several with a common folder. What a part gave stays on disk under the key of its stage, so a job
that was killed goes on where it was, and a changed prompt redoes its stage and those that read it. The last step writes captions into
the manifest, as synthetic, with a line of provenance for each.
"""
