"""A round's models behind OpenAI's API, and a page to ask them on."""
