"""What the books speak of: fifty categories with a vocabulary each, and the names of people and towns."""

from __future__ import annotations

import re
from dataclasses import dataclass
from unicodedata import normalize


@dataclass(frozen=True, slots=True)
class Genre:
    """A category of the shop and the words that its books share."""

    name: str  # as the breadcrumb shows it
    weight: int  # how many books of a turn of the wheel it gets; see shelves.py
    story: bool  # told as a story; otherwise written as a book of facts
    things: tuple[str, ...]
    qualities: tuple[str, ...]
    people: tuple[str, ...]
    places: tuple[str, ...]
    deeds: tuple[str, ...]  # "crossing borders"

    @property
    def slug(self) -> str:
        return slugify(self.name)


def slugify(text: str) -> str:
    """Text as it stands in an address: lower-case ASCII letters and digits, joined by hyphens."""
    plain = normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", re.sub(r"['\"]", "", plain).lower()).strip("-")


def _genres(table: str) -> tuple[Genre, ...]:
    """The genres of a table: a block each, its head and then a line for each kind of word."""
    genres = []
    for block in table.strip().split("\n\n"):
        head, things, qualities, people, places, deeds = block.split("\n")
        name, weight, kind = head.split(" | ")
        genres.append(
            Genre(
                name=name,
                weight=int(weight),
                story=kind == "story",
                things=_words(things),
                qualities=_words(qualities),
                people=_words(people),
                places=_words(places),
                deeds=tuple(deeds.split(", ")),
            )
        )
    return tuple(genres)


def _words(line: str) -> tuple[str, ...]:
    return tuple(line.split())


#: In each block: name | weight | kind; things; qualities; people; places; deeds.
#: Weights differ as they do in shops: large shelves, and some with one book in a thousand.
GENRES = _genres("""
Travel | 24 | study
ferry passport itinerary caravan suitcase compass railway monsoon visa detour hostel postcard
unhurried foreign sunlit roadworn distant windswept
porter backpacker pilgrim navigator
harbour bazaar frontier archipelago
crossing borders, packing light, missing trains, sleeping under canvas

Mystery | 46 | story
alibi clue inheritance ledger candlestick footprint telegram motive keyhole inquest cipher witness
locked forged unsigned baffling crooked missing
inspector sleuth housekeeper suspect
manor vicarage library boathouse
following footprints, questioning guests, doubting alibis, searching cellars

Historical Fiction | 38 | story
musket bonnet dowry loom garrison carriage plague ration petticoat dispatch hearth regiment
wartime Victorian besieged homespun exiled gaslit
governess drummer seamstress blacksmith
tenement barracks plantation dockyard
mending uniforms, smuggling letters, fleeing armies, burying sons

Graphic Novels | 64 | story
cape panel mutant gadget sidekick sketchbook robot mask speech-bubble villain nemesis blaster
inked masked radioactive monochrome caped pulpy
vigilante cartoonist supervillain henchman
metropolis rooftop hideout arcade
drawing panels, fighting crime, hiding identities, saving the city

Classics | 18 | story
parasol drawing-room sonnet estate whale orchard duel confession balcony portrait raft inheritor
immortal celebrated melancholy unabridged proud venerable
gentleman spinster orphan count
parsonage moor seaport ballroom
refusing proposals, hunting whales, writing confessions, walking the moors

Philosophy | 10 | study
syllogism virtue paradox essence dialogue conscience axiom free-will ethics cave reason being
examined categorical stoic skeptical absurd metaphysical
thinker stoic skeptic sophist
academy lyceum agora symposium
examining life, doubting everything, defining virtue, arguing from first principles

Romance | 44 | story
kiss bouquet heartbeat engagement honeymoon wedding love-letter rose bridesmaid valentine proposal vow
breathless star-crossed tender smitten forbidden blushing
duke bride florist heartthrob
altar ballroom vineyard seaside
falling in love, breaking engagements, stealing kisses, writing love letters

Womens Fiction | 20 | story
sisterhood casserole divorce reunion book-club bakery scrapbook secret recipe-box porch wardrobe friendship
resilient second-chance heartfelt bittersweet neighborly candid
mother sister widow best-friend
cottage kitchen salon cul-de-sac
starting over, keeping secrets, mending friendships, raising daughters

Fiction | 62 | story
elevator umbrella bicycle photograph apartment silence newspaper river piano staircase mirror suitcase
ordinary unspoken quiet restless luminous unlikely
neighbor stranger teacher translator
village apartment station bridge
remembering summers, leaving home, waiting for news, telling lies

Children’s Stories | 34 | story
puddle teddy-bear kite treehouse bedtime pajama balloon duckling crayon lollipop nursery snowman
giggly sleepy fuzzy wobbly cuddly muddy
puppy toddler grandpa bunny
playground nursery pond toyshop
jumping in puddles, counting ducklings, flying kites, baking gingerbread

Religion | 12 | study
scripture pilgrimage temple monastery creed covenant relic liturgy prophet altar commandment hymn
sacred monastic ancient ecumenical devout orthodox
rabbi imam abbot theologian
cathedral mosque synagogue shrine
reading scripture, comparing creeds, walking pilgrimages, keeping the fast

Nonfiction | 58 | study
archive interview statistic pipeline container shipwreck bureaucracy statute census whistleblower dossier map
investigative factual documented overlooked surprising firsthand
reporter archivist eyewitness investigator
newsroom courthouse warehouse embassy
checking facts, following money, interviewing witnesses, opening archives

Music | 22 | study
guitar melody chorus vinyl drumbeat setlist amplifier symphony encore riff metronome tambourine
electric syncopated unplugged melodic offbeat platinum
drummer songwriter conductor roadie
backstage studio jukebox opera-house
tuning guitars, touring in vans, writing choruses, mixing records

Default | 40 | story
envelope drawer ticket errand receipt bookmark lamp button calendar parcel window key
plain assorted general usual nameless spare
clerk reader visitor caretaker
corridor office waiting-room depot
running errands, opening parcels, filing receipts, looking for keys

Science Fiction | 42 | story
starship android wormhole hologram airlock terraformer clone antimatter beacon colony cryopod algorithm
interstellar synthetic zero-gravity post-human orbital quantum
pilot android xenobiologist astronaut
space-station moonbase asteroid outer-rim
terraforming moons, waking from cryosleep, decoding signals, outrunning supernovas

Sports and Games | 14 | study
goalpost racket marathon checkmate scoreboard dugout penalty trophy dribble referee playbook overtime
undefeated sprinting championship underdog offside athletic
goalkeeper coach grandmaster sprinter
stadium locker-room racetrack velodrome
training for marathons, coaching underdogs, sacrificing queens, scoring in overtime

Add a comment | 30 | study
footnote margin opinion rumor reply thread postscript guestbook annotation afterthought quotation errata
unsolicited anonymous marginal handwritten footnoted stray
commenter editor proofreader correspondent
forum letters-page message-board guestroom
replying to strangers, annotating margins, correcting errata, collecting opinions

Fantasy | 50 | story
dragon sword rune wizard crown amulet prophecy griffin spellbook throne goblin enchantment
enchanted elven cursed runic mythic fire-breathing
sorceress wizard knight changeling
citadel enchanted-forest dungeon kingdom
slaying dragons, breaking curses, forging swords, riding griffins

New Adult | 12 | story
dorm tattoo internship roommate road-trip hangover scholarship ex-boyfriend motorcycle campus deadline playlist
tattooed reckless headstrong broke heart-wrecking sophomore
roommate bartender quarterback barista
campus dormitory nightclub diner
sharing dorms, dropping out, dating the quarterback, paying rent

Young Adult | 46 | story
locker prom diary crush skateboard detention yearbook mixtape bully homecoming rebellion skate-park
sixteen-year-old awkward rebellious misfit popular dystopian
cheerleader outcast exchange-student skater
high-school cafeteria bleachers summer-camp
skipping class, surviving prom, keeping diaries, starting rebellions

Science | 18 | study
neutron genome telescope fossil enzyme hypothesis particle microscope isotope mutation galaxy experiment
subatomic evolutionary empirical cosmic microscopic falsifiable
physicist biologist astronomer geneticist
laboratory observatory particle-collider rainforest
splitting atoms, sequencing genomes, testing hypotheses, dating fossils

Poetry | 24 | story
stanza sonnet metaphor nightingale ode haiku verse moonlight elegy refrain rhyme blossom
lyrical unrhymed elegiac moonlit whispered tidal
poet bard lover dreamer
meadow shoreline garden attic
rhyming in the dark, breaking lines, praising blossoms, listening to nightingales

Paranormal | 10 | story
vampire werewolf seance ouija-board aura ghost full-moon coven poltergeist talisman fang shapeshifter
undead moon-cursed spectral bloodthirsty psychic otherworldly
medium vampire alpha witch
graveyard crypt haunted-mansion bayou
summoning spirits, hunting vampires, howling at the moon, reading auras

Art | 12 | study
canvas fresco palette easel sculpture charcoal pigment gallery brushstroke still-life mosaic engraving
impressionist gilded abstract baroque hand-painted curated
painter sculptor curator forger
atelier museum gallery chapel
mixing pigments, restoring frescoes, sketching nudes, hanging exhibitions

Psychology | 12 | study
memory anxiety habit bias childhood trauma attachment dream ego placebo attention impulse
cognitive unconscious behavioral neurotic anxious clinical
therapist psychiatrist patient analyst
consulting-room clinic couch asylum
unlearning habits, interpreting dreams, measuring attention, facing anxiety

Autobiography | 14 | study
childhood confession homecoming diary accent backyard audition divorce addiction stage scar memoir
unvarnished self-made rueful remembered outspoken autobiographical
actress immigrant comedian champion
backyard hometown rehab greenroom
growing up poor, telling it all, forgiving parents, getting sober

Parenting | 6 | study
toddler tantrum diaper bedtime lullaby stroller teenager naptime breastfeeding screen-time sibling allowance
sleepless patient firm newborn playful overtired
parent pediatrician stepfather babysitter
nursery playgroup minivan kindergarten
surviving tantrums, setting limits, sleeping through the night, praising effort

Adult Fiction | 2 | story
affair mortgage whisky regret penthouse alimony cigarette lipstick hotel-room silk midnight mistress
sultry jaded unfaithful smoky middle-aged decadent
banker mistress novelist divorcee
penthouse casino hotel-bar yacht
having affairs, drinking whisky, lying to husbands, counting regrets

Humor | 14 | study
banana-peel punchline mother-in-law toupee whoopee-cushion clown pun sarcasm mishap pratfall kazoo sock
hilarious deadpan ridiculous tongue-in-cheek silly unhinged
comedian clown curmudgeon prankster
comedy-club office-party dentist self-checkout
slipping on peels, laughing at funerals, losing socks, arguing with printers

Horror | 22 | story
scream corpse cellar nightmare demon asylum axe scarecrow blood coffin maggot chainsaw
bloodcurdling rotting sinister possessed abandoned flesh-eating
exorcist butcher gravedigger cannibal
basement cornfield morgue cabin
digging up graves, hearing screams, locking the cellar, feeding the thing below

History | 24 | study
empire treaty revolution dynasty parchment siege monarchy colony uprising chronicle republic fleet
imperial medieval colonial revolutionary forgotten dynastic
emperor historian diplomat peasant
battlefield parliament palace trench
toppling empires, signing treaties, digging trenches, reading chronicles

Food & Drink | 34 | study
sourdough skillet espresso casserole cinnamon noodle marinade teapot saffron dumpling vinaigrette truffle
slow-cooked buttery pickled zesty vegan caramelized
chef baker barista sommelier
kitchen bistro vineyard market-stall
kneading dough, roasting vegetables, pairing wines, simmering stock

Christian Fiction | 6 | story
prayer barn-raising parable Amish-quilt choir steeple grace potluck missionary forgiveness hymnal baptism
prayerful Amish faithful prodigal humble redeemed
pastor deacon missionary widow
chapel prairie farmhouse mission
praying for rain, forgiving enemies, quilting bees, coming home to faith

Business | 18 | study
startup quarterly-report shareholder brand invoice merger spreadsheet pitch leadership supply-chain bonus customer
profitable lean disruptive scalable corporate agile
founder manager investor consultant
boardroom factory open-plan-office stock-exchange
pitching investors, hiring slowly, cutting costs, closing deals

Biography | 12 | study
laboratory-notebook cabinet presidency inventor rival biography correspondence assassination patent legacy statue
towering misunderstood presidential lifelong contradictory authorized
president inventor aviator composer
white-house workshop exile birthplace
inventing the future, winning elections, outliving rivals, flying solo

Thriller | 26 | story
bomb assassin hostage detonator conspiracy passport sniper briefcase ransom countdown mole burner-phone
ticking covert deadly double-crossed classified ruthless
agent assassin hacker bodyguard
safe-house embassy bunker airport
defusing bombs, outrunning assassins, trusting no one, stealing secrets

Contemporary | 4 | story
text-message subway therapist dating-app laundromat commute podcast breakup houseplant rent brunch wifi
modern urban overworked single messy online
flatmate commuter blogger neighbor
laundromat subway rooftop-bar co-working-space
swiping right, missing the subway, watering houseplants, moving in together

Spirituality | 8 | study
meditation chakra mantra breath stillness incense karma awakening retreat guru crystal enlightenment
mindful serene awakened inner boundless barefoot
guru monk seeker healer
ashram mountaintop zendo retreat
breathing deeply, letting go, sitting in stillness, opening the heart

Academic | 1 | study
dissertation citation lecture seminar bibliography tenure footnoting thesis peer-review colloquium syllabus faculty
peer-reviewed interdisciplinary doctoral theoretical scholarly annotated
professor dean postdoc lecturer
lecture-hall faculty-lounge campus-library seminar-room
defending a thesis, citing sources, grading essays, applying for tenure

Self Help | 12 | study
habit goal mindset procrastination confidence checklist morning-routine willpower affirmation boundary clutter
motivated productive confident fearless decluttered purposeful
coach overthinker achiever mentor
comfort-zone vision-board bathroom-mirror to-do-list
setting goals, waking at five, beating procrastination, saying no

Historical | 3 | story
longship toga gladiator jousting catapult samurai minstrel pharaoh scroll legion tournament papyrus
Roman feudal Viking bronze-age chivalrous Norman
centurion viking squire scribe
colosseum fjord abbey pyramid
rowing longships, carrying scrolls, jousting for honor, marching with the legion

Christian | 4 | study
gospel sermon discipleship salvation apostle psalm cross resurrection fellowship ministry devotional beatitude
gospel-centered prayerful biblical forgiven apostolic grace-filled
apostle preacher disciple shepherd
pulpit Galilee upper-room churchyard
preaching the gospel, studying psalms, loving neighbors, carrying the cross

Suspense | 3 | story
stalker blackmail doorbell accomplice amnesia lakehouse voicemail stepmother babymonitor disappearance curtain shadow
unreliable watchful creeping vanished paranoid claustrophobic
stalker husband nanny widow
lakehouse gated-community cliff guesthouse
checking the locks, watching the neighbors, losing memory, hearing footsteps

Short Stories | 4 | story
vignette anecdote fable barbershop matchbox rowboat wake postbox carnival fishhook lantern train-ticket
brief linked glancing minor fleeting collected
barber ferryman fisherman landlady
barbershop carnival crossroads jetty
catching the last train, swapping anecdotes, rowing at dawn, leaving things unsaid

Gardening | 8 | study
compost trowel perennial seedling greenhouse mulch earthworm hedge watering-can pruning-shear tulip raised-bed
blooming evergreen organic shady drought-proof homegrown
gardener botanist beekeeper florist
allotment greenhouse orchard flowerbed
pruning roses, turning compost, sowing seedlings, fighting slugs

Health | 5 | study
cholesterol vitamin diabetes stretching sleep immunity protein fasting blood-pressure gut vaccine yoga
nutritious low-carb aerobic chronic restorative preventive
doctor nurse dietitian physiotherapist
hospital pharmacy gymnasium sauna
lowering cholesterol, sleeping better, eating greens, strengthening the back

Politics | 5 | study
ballot senate lobbyist filibuster constitution referendum populism campaign veto welfare coalition border-wall
partisan democratic populist constitutional polarized diplomatic
senator activist lobbyist voter
capitol polling-station town-hall parliament
counting ballots, lobbying senators, rewriting constitutions, marching on the capitol

Crafts & Hobbies | 3 | study
yarn crochet-hook origami quilt embroidery knitting-needle glue bead watercolor pottery-wheel macrame buttonhole
knitted handmade upcycled stitched woolen origami-folded
knitter potter quilter carpenter
sewing-room workshop craft-fair shed
knitting socks, folding cranes, throwing pots, sewing quilts

Mathematics | 2 | study
theorem prime-number proof integral polynomial infinity matrix conjecture topology fractal logarithm set
elegant irrational prime infinite algebraic unsolved
mathematician geometer logician statistician
blackboard number-line hyperplane torus
proving theorems, counting primes, folding dimensions, solving equations

Crime | 1 | story
heist mobster getaway-car safe-cracker precinct bribe stakeout handcuff loan-shark fingerprint jailbreak gangland
crooked hard-boiled wanted cold-blooded streetwise corrupt
detective mobster bank-robber parolee
precinct docklands pawnshop prison
robbing banks, bribing cops, cracking safes, going straight
""")

FIRST_NAMES = _words("""
    Ada Amélie Anaïs Anton Beatriz Björn Chidi Clara Dalia Dmitri Edith Elif Emeka Fatima Felix Freya Gonçalo Greta
    Hanna Hugo Ines Ivo Jasper João José Kaito Keira Lena Liam Łucja Mabel Mateus Mei Milo Nadia Noor Olga Oscar
    Petra Priya Quentin Rafael Renée Rosa Søren Tamsin Teodor Ursula Vera Wanda Xavier Yara Yusuf Zoë
""")
LAST_NAMES = _words("""
    Abara Almeida Ashdown Barros Bexley Birch Calloway Çelik Cordeiro Crane D’Arcy Delacroix Dunmore Eklund Espinoza
    Farrow Ferreira Fjeld Garrick Gómez Hallam Haugen Hollis Ibarra Ito Jansen Jørgensen Kemp Kowalczyk Larkspur
    Lindqvist Lovell Madaki Marchetti Mbeki Müller Nakamura Novák O’Rourke Okafor Oyelaran Pemberton Pinheiro Quill
    Ravenscroft Reyes Rosewood Saldanha Sørensen Strand Tavares Thorne Udo Vance Vasquez Whitlock Winslow Yilmaz
    Zeller Zhou
""")
TOWN_BEGINNINGS = _words("""
    Alder Ash Black Bram Cold Dun Elm Fern Glen Grey Haw Holm Kings Lark Mar North Oak Pen Quarry Raven Rook Salt
    Silver Stone Thorn Under West White Wind Wolf
""")
TOWN_ENDINGS = _words("""
    bourne by combe dale field ford gate ham haven holt mere moor ton wick
""")
