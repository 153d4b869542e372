"""What clients of object storage say when it refuses or does not answer, in a few words of ours. Pure.

Their own texts are pages long, and two clients (obstore, LanceDB) write them in two ways.
"""

import re

NO_BUCKET = "NoSuchBucket"
_CODE = re.compile(r"<Code>(\w{1,60})</Code>")
_STATUS = re.compile(r"status(?: code)?: (\d{3})")
_OTHERWISE = (
    (
        re.compile(r"169\.254\.\d+\.\d+|Failed to get AWS credentials|CredentialsNotLoaded|MissingCredentials"),
        "there are no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment",
    ),
    (re.compile(r"timed out|kind: Timeout|TimedOut|deadline"), "it did not answer in time"),
    (
        re.compile(r"error sending request|kind: Connect|ConnectError|dns error|Connection (?:refused|reset)"),
        "there is no connection; see that it runs, and AWS_ENDPOINT_URL",
    ),
)
_OF_CREDENTIALS = {
    "AccessDenied",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
}


def describe_refusal(text: str) -> str:
    """Why object storage did not do what it was asked to, and what to do about it.

    Args:
        text: what a client of it said.
    """
    if code := _CODE.search(text):
        if code[1] == NO_BUCKET:
            return f"there is no such bucket ({NO_BUCKET}); make it, or name another"
        if code[1] in _OF_CREDENTIALS:
            return f"the credentials are not good for that ({code[1]}); see AWS_ACCESS_KEY_ID and its policy"
        return f"it says {code[1]}"
    for said, meaning in _OTHERWISE:
        if said.search(text):
            return meaning
    status = _STATUS.search(text)
    return f"it answers {status[1]}" if status else "its client gives no reason that is known"
