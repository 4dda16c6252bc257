"""One evaluation as a page that a person wants to read: a single HTML file without script or outside resource.

measurement  what was found, and the verdict         curves   precision–recall and reliability, as numbers
segments     the queries by kind                     plots    the drawings, as SVG
page         all of it in order                      markup   HTML that nothing shown in it can break
"""

from models.report.measurement import Measurement
from models.report.page import page

__all__ = ["Measurement", "page"]
