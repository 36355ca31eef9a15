"""The usage explorer: its question, its page with chart and tables, and its file."""

from portal.usage_pages.file import file_name as file_name
from portal.usage_pages.file import table as table
from portal.usage_pages.page import Explorer as Explorer
from portal.usage_pages.page import explore as explore
from portal.usage_pages.question import BY as BY
from portal.usage_pages.table import change as change
