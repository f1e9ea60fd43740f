"""Forty questions of the project's own, so that the task runs with no data on disk.

Rows: question, choices, place of the right choice, subject.
"""

from __future__ import annotations

SAMPLE: tuple[tuple[str, tuple[str, ...], int, str], ...] = (
    ("Which gas do green plants take in for photosynthesis?", ("Oxygen", "Carbon dioxide", "Nitrogen", "Helium"), 1, "biology"),
    ("Where in a cell with a nucleus is most of its DNA?", ("In the membrane", "In the ribosomes", "In the nucleus", "In the vacuole"), 2, "biology"),
    ("Which organ pumps blood through the human body?", ("The heart", "The liver", "The lungs", "The spleen"), 0, "biology"),
    ("Which of these animals is a mammal?", ("Penguin", "Shark", "Frog", "Bat"), 3, "biology"),
    ("What do red blood cells carry?", ("Oxygen", "Bile", "Insulin", "Starch"), 0, "biology"),
    ("What is the unit of force in the SI?", ("Joule", "Newton", "Watt", "Pascal"), 1, "physics"),
    ("A body moves at constant velocity. What is the net force on it?", ("Equal to its weight", "Growing", "Zero", "Equal to its speed"), 2, "physics"),
    ("Which of these travels fastest in empty space?", ("Sound", "A bullet", "A comet", "Light"), 3, "physics"),
    ("A resistor of 4 ohms lies at 12 volts. What current flows?", ("3 amperes", "8 amperes", "16 amperes", "48 amperes"), 0, "physics"),
    ("What happens to the volume of a gas that is compressed at constant temperature?", ("It grows", "It shrinks", "It stays", "It vanishes"), 1, "physics"),
    ("What is the chemical symbol of sodium?", ("S", "So", "Na", "N"), 2, "chemistry"),
    ("How many protons has a hydrogen atom?", ("None", "Two", "Four", "One"), 3, "chemistry"),
    ("Which pH value is acidic?", ("3", "7", "9", "12"), 0, "chemistry"),
    ("Which substance is a noble gas?", ("Chlorine", "Neon", "Hydrogen", "Oxygen"), 1, "chemistry"),
    ("What forms when an acid neutralises a base?", ("Only gas", "Metal", "Salt and water", "Sugar"), 2, "chemistry"),
    ("What is the derivative of x squared?", ("x", "2", "x squared", "2x"), 3, "mathematics"),
    ("How many sides has a hexagon?", ("6", "5", "7", "8"), 0, "mathematics"),
    ("Which number is prime?", ("21", "23", "27", "33"), 1, "mathematics"),
    ("What is the sum of the angles of a plane triangle?", ("90 degrees", "120 degrees", "180 degrees", "360 degrees"), 2, "mathematics"),
    ("A fair coin is tossed twice. How likely are two heads?", ("1/2", "1/3", "1/8", "1/4"), 3, "mathematics"),
    ("What is the decimal value of the binary number 101?", ("5", "3", "6", "101"), 0, "computer science"),
    ("Which structure returns the element that was added last first?", ("A queue", "A stack", "A sorted list", "A hash table"), 1, "computer science"),
    ("How does the time of binary search grow with n sorted items?", ("As n", "As n squared", "As log n", "Not at all"), 2, "computer science"),
    ("Which value can a single bit not hold?", ("0", "1", "On", "2"), 3, "computer science"),
    ("What does a compiler do?", ("Translates a program", "Cools a processor", "Prints a page", "Charges a battery"), 0, "computer science"),
    ("On which continent is the river Nile?", ("Asia", "Africa", "Europe", "South America"), 1, "geography"),
    ("Which is the largest ocean?", ("Atlantic", "Indian", "Pacific", "Arctic"), 2, "geography"),
    ("What is the capital of Japan?", ("Seoul", "Beijing", "Osaka", "Tokyo"), 3, "geography"),
    ("Which line divides the earth into northern and southern halves?", ("The equator", "The prime meridian", "The tropic of Cancer", "The date line"), 0, "geography"),
    ("Which country has the city of Cairo?", ("Greece", "Egypt", "Iraq", "Morocco"), 1, "geography"),
    ("If the price of a good rises, what usually happens to the quantity demanded?", ("It rises", "It doubles", "It falls", "It never changes"), 2, "economics"),
    ("What is a general and lasting rise of prices called?", ("Recession", "Arbitrage", "Surplus", "Inflation"), 3, "economics"),
    ("A market with one seller only is called what?", ("A monopoly", "An auction", "A cartel of buyers", "A commons"), 0, "economics"),
    ("What does a firm's revenue less its costs make?", ("Its capital", "Its profit", "Its debt", "Its turnover"), 1, "economics"),
    ("Which war ended in 1945?", ("The Crimean War", "The First World War", "The Second World War", "The Thirty Years' War"), 2, "history"),
    ("Who built the pyramids of Giza?", ("The Romans", "The Aztecs", "The Vikings", "The ancient Egyptians"), 3, "history"),
    ("Which invention is Johannes Gutenberg known for?", ("Printing with movable type", "The steam engine", "The telescope", "The compass"), 0, "history"),
    ("All cats are animals; Tom is a cat. What follows?", ("Tom is a dog", "Tom is an animal", "All animals are cats", "Nothing"), 1, "logic"),
    ("If it rains the street is wet. The street is dry. What follows?", ("It rains", "It will rain", "It does not rain", "Nothing"), 2, "logic"),
    ("What is the negation of 'all swans are white'?", ("No swan is white", "All swans are black", "Some swan is white", "Some swan is not white"), 3, "logic"),
)
