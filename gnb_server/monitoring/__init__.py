"""What a gNB can know about how well its decoders do, without the channel: indicators, references, alarms.

Nothing here may import what sees the downlink (a contract in pyproject.toml): whether an alarm was right is for
`gnb_server.grading` to say, which a real gNB does not have.
"""
