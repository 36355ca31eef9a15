"""How the admin writes dates and times: with the zone, because every time of the portal's is UTC.

Django reads these names through FORMAT_MODULE_PATH; the portal's own pages use `components/time.html`.
"""

DATE_FORMAT = "j M Y"
DATETIME_FORMAT = "j M Y, H:i T"
