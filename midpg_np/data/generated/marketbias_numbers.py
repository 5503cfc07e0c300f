"""Numbers published of the complete MarketBias electronics file, and a few estimates beside them.

Counts are of the 1,292,954 rows of ``df_electronics.csv``.  What the publications do not say was
estimated from a part of the rows, and is marked so.
"""

from __future__ import annotations

from datetime import date
from typing import NamedTuple

N_ROWS, N_USERS, N_ITEMS = 1_292_954, 1_157_633, 9_560
RATING_ROWS = (143_755, 78_648, 100_630, 214_166, 755_755)  # ratings 1 to 5
FIRST_DATE, LAST_DATE = date(1999, 6, 13), date(2018, 10, 1)
YEARS = tuple(range(1999, 2019))

GENDERS = ("Female", "Male")
USERS_OF_GENDER = (71_043, 61_350)  # of the others it is missing
MODELS_SHOWN = ("Female", "Female&Male", "Male")
ITEMS_OF_MODEL = (4_090, 2_466, 3_004)
# Rows by model_attr and user_attr, where the latter is known.
MODEL_BY_GENDER = ((34_259, 31_587), (26_478, 24_930), (25_963, 30_907))

# Users with one row, with two, and with more; the rows of those and how many they have
# (a histogram of 1,782 such users; the most active user of all has 41).
USERS_BY_ACTIVITY = (1_054_823, 82_475, 20_335)
ROWS_OF_ACTIVE_USERS = 73_181
MOST_ROWS_OF_A_USER = 41
ACTIVE_USERS = {
    **{3: 1270, 4: 300, 5: 102, 6: 44, 7: 17, 8: 13, 9: 12, 10: 4, 11: 3, 12: 5, 13: 1, 14: 1},
    **{17: 2, 18: 2, 19: 1, 20: 2, 21: 1, 25: 1, 34: 1},
}

# By year of the rating: rows, and their mean rating.  By month: rows.
RATING_YEAR_ROWS = (
    *(47, 187, 403, 481, 833, 1275, 2170, 2614, 6798, 9428),
    *(12804, 16888, 23894, 38389, 99855, 180676, 320887, 302619, 192477, 80229),
)
RATING_YEAR_MEAN = (
    *(3.7447, 3.8770, 4.1141, 4.0125, 3.8067, 3.8408, 3.8774, 3.7995, 4.0558, 3.9617),
    *(3.8857, 3.8541, 3.8921, 3.9915, 4.1181, 4.1271, 4.0642, 4.0501, 4.0345, 3.9673),
)
MONTH_ROWS = (
    *(140773, 110546, 116464, 99136, 98207, 96317),
    *(107612, 109835, 97368, 95084, 97015, 124597),
)
# By the item's own year: the mean rating.
ITEM_YEAR_MEAN = (
    *(3.5424, 4.4306, 4.0655, 3.9058, 3.7726, 3.9105, 4.1140, 4.2124, 3.9779, 3.9686),
    *(3.9722, 4.0377, 4.0856, 4.1539, 4.0643, 4.0754, 4.0063, 4.0232, 3.9212, 3.9968),
)
# Estimated: share of ratings so many years after the item's year, from one year before it on.
YEARS_AFTER = (
    *(0.004, 0.140, 0.257, 0.203, 0.137, 0.088, 0.054, 0.030, 0.020),
    *(0.014, 0.015, 0.012, 0.008, 0.008, 0.006, 0.002, 0.001),
)


class Category(NamedTuple):
    """A category: mean rating, rows by user_attr (women, men), items (estimated), rows by year."""

    name: str
    mean_rating: float
    gender_rows: tuple[int, int]
    item_share: int
    year_rows: tuple[int, ...]


CATEGORIES = (
    Category(
        *("Headphones", 3.895877, (24298, 24566), 841),
        (
            *(0, 3404, 0, 0, 0, 4276, 4400, 5067, 896, 2564),
            *(7325, 16192, 25343, 29990, 32846, 78617, 131097, 15023, 1766, 528),
        ),
    ),
    Category(
        *("Computers & Accessories", 4.101871, (22613, 22407), 1107),
        (
            *(0, 58, 48, 47, 1413, 793, 88, 5836, 5455, 14982),
            *(17270, 8465, 19650, 45275, 51484, 69395, 65243, 14115, 2306, 1015),
        ),
    ),
    Category(
        *("Camera & Photo", 4.129795, (13452, 12920), 1143),
        (
            *(0, 65, 596, 341, 1864, 1770, 3525, 3312, 6819, 5707),
            *(7570, 15220, 12688, 28515, 18816, 30803, 42403, 8850, 2446, 1263),
        ),
    ),
    Category(
        *("Accessories & Supplies", 4.257784, (9610, 10922), 342),
        (
            *(0, 12, 18, 0, 661, 40, 54, 1495, 2205, 1459),
            *(12075, 6409, 16794, 17683, 24770, 32823, 33534, 6328, 1647, 591),
        ),
    ),
    Category(
        *("Portable Audio & Video", 4.122996, (9961, 8884), 372),
        (
            *(118, 22, 0, 567, 0, 15, 187, 247, 1221, 2642),
            *(4282, 2103, 8474, 7196, 18731, 30935, 62695, 3305, 416, 214),
        ),
    ),
    Category(
        *("Car Electronics & GPS", 4.062897, (1490, 2164), 140),
        (
            *(0, 0, 0, 0, 0, 272, 2863, 190, 159, 937),
            *(2542, 625, 1341, 1410, 1327, 10709, 7574, 1150, 1143, 828),
        ),
    ),
    Category(
        *("Television & Video", 3.841626, (1869, 2133), 129),
        (
            *(0, 11, 0, 0, 11, 29, 221, 142, 396, 184),
            *(754, 702, 2385, 6139, 5033, 5935, 8114, 1512, 417, 72),
        ),
    ),
    Category(
        *("Home Audio", 4.04741, (1284, 1770), 69),
        (
            *(0, 0, 40, 0, 0, 0, 239, 0, 838, 23),
            *(2444, 323, 766, 2464, 2892, 7271, 5451, 1390, 37, 15),
        ),
    ),
    Category(
        *("Wearable Technology", 3.494224, (1311, 789), 43),
        (
            *(0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
            *(0, 0, 0, 50, 4641, 4631, 5134, 1357, 162, 40),
        ),
    ),
    Category(
        *("Security & Surveillance", 3.770313, (812, 869), 38),
        (
            *(0, 0, 0, 0, 0, 0, 0, 47, 0, 22),
            *(71, 276, 254, 432, 1155, 4075, 2759, 1568, 89, 58),
        ),
    ),
)


class Brand(NamedTuple):
    """A brand: rows, mean rating, and its share by category in per cent (estimated)."""

    name: str
    rows: int
    mean_rating: float
    percent: dict[int, int]


# The other 961,834 rows have no brand.
BRANDS = tuple(
    Brand(*brand)
    for brand in (
        ("Bose", 29222, 4.286, {0: 60, 4: 25, 1: 12}),
        ("Logitech", 29203, 4.132, {1: 99}),
        ("Sony", 20360, 4.168, {0: 63, 2: 22, 4: 8}),
        ("Mpow", 17477, 3.992, {0: 85, 4: 10}),
        ("EldHus", 16530, 4.209, {0: 47, 3: 45, 1: 7}),
        ("Sennheiser", 13322, 4.064, {0: 92, 1: 5}),
        ("Fujifilm", 12245, 4.333, {2: 98}),
        ("TaoTronics", 12125, 4.188, {0: 53, 7: 46}),
        ("Etre Jeune", 11753, 4.256, {3: 43, 0: 41, 1: 14}),
        ("Pyle", 11606, 3.645, {7: 32, 4: 32, 0: 11, 5: 10}),
        ("JLAB", 10079, 3.501, {0: 98}),
        ("Skullcandy", 10014, 3.779, {0: 99}),
        ("Kodak", 8701, 3.764, {2: 100}),
        ("Linksys", 8288, 3.539, {1: 94, 2: 6}),
        ("Jabra", 7417, 3.607, {0: 50, 3: 26, 1: 24}),
        ("Panasonic", 7349, 4.163, {0: 80, 6: 12, 2: 8}),
        ("Fintie", 7212, 4.514, {1: 81, 2: 10, 3: 8}),
        ("Garmin", 7212, 4.157, {5: 100}),
        ("Samsung", 7051, 4.002, {6: 54, 2: 43}),
        ("Canon", 6959, 4.277, {2: 100}),
        ("Neewer", 6697, 4.32, {2: 99}),
        ("Philips", 6658, 3.826, {0: 62, 4: 26, 6: 7}),
        ("Nikon", 6539, 4.012, {2: 100}),
        ("Apple", 6027, 4.375, {1: 79, 4: 19}),
        ("Polaroid", 5926, 3.785, {2: 97}),
        ("DBPOWER", 4818, 4.038, {4: 82, 6: 13, 1: 5}),
        ("Uniden", 4701, 3.79, {4: 64, 9: 20, 5: 16}),
        ("Olympus", 3709, 4.147, {2: 100}),
        ("ViewSonic", 3426, 3.759, {1: 50, 2: 49}),
        ("ebasy", 2771, 4.382, {3: 47, 0: 27, 1: 26}),
        ("Plemo", 2385, 4.589, {1: 100}),
        ("HP", 2140, 3.867, {1: 93, 2: 7}),
        ("LSS", 2040, 3.8, {1: 100}),
        ("Toshiba", 2008, 3.986, {6: 57, 1: 42}),
        ("Savage", 1749, 4.535, {2: 100}),
        ("Tiamat", 1738, 4.498, {0: 100}),
        ("XShields", 1709, 3.909, {1: 100}),
        ("JVC", 1702, 3.888, {0: 40, 5: 39, 2: 19}),
        ("Generic", 1606, 3.465, {0: 56, 2: 26, 1: 10}),
        ("Gary Fong", 1203, 4.152, {2: 100}),
        ("iRULU", 991, 3.474, {1: 100}),
        ("Archos", 961, 3.257, {4: 65, 1: 29}),
        ("Funlux", 939, 3.394, {2: 94, 9: 6}),
        ("IRULU", 933, 3.37, {1: 100}),
        ("Vivitar", 774, 3.512, {2: 96}),
        ("Cooper Cases", 745, 4.389, {1: 100}),
        ("Kensington", 721, 3.924, {1: 71, 0: 29}),
        ("EINCAR", 616, 3.07, {5: 86, 4: 14}),
        ("DURAGADGET", 419, 3.728, {1: 66, 2: 33}),
        ("Koolertron", 344, 4.059, {1: 60, 2: 35}),
    )
)
