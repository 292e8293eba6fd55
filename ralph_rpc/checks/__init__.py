"""What `ralph-rpc doctor` looks at, one subject a module.

A check is a function from a `Place` to findings. Looking changes nothing; what can be mended safely carries its
repair, which is carried out only with --fix.
"""
