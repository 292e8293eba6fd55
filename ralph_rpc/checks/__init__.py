"""What `ralph-rpc doctor` looks at, one subject a module.

A check is a function from a `Place` to findings. Looking changes nothing. A finding that can be fixed safely carries
its repair, which runs only with --fix.
"""
