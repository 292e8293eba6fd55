"""ralph-rpc: runs coding-agent loops unattended and speaks to the world through files."""

__version__ = "0.1.0"
