"""From a publisher's server to unpacked files: whole, judged before they are used, or not there at all."""
