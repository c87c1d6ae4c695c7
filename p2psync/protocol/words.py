"""The words of one-time pairing codes.

1296 common words of 3-7 letters: three of them carry 31 bits. No word is the beginning of another
and no two are one letter apart, so one slip of the keyboard never gives another valid code.
"""

_TEXT = """
acorn active actor admiral adult agent agile album alder almond alpaca amazing amber anchor
anchovy ancient angel ankle annual answer antler apple apricot apron arbor arcade archer arctic
arena arrive artist aspen athlete atlas atom aurora author autumn avocado axle azure badger baker
balance balcony ball bamboo banana bandage banjo banner barber barley baron barrel basil basket
bath battery beacon beagle beaver bed beetle begin beige belt bench berry bicycle big birch bird
biscuit blanket blaze blender blink bloom blossom blouse blue board bobcat bonnet boost borrow
bottle boulder bounce bowl boxer branch brave bread breath breeze brick brief bright bronze brook
brush bubble bucket buckle buffalo bugle builder bulb bundle bunny burger butcher butter button
cabbage cabin cable cactus camel camera campus canal canary candle candy canoe canopy canvas
canyon captain caramel card careful cargo caribou carpet carrot cartoon cashew cashier castle
catfish cave cedar celery cement century cereal chain chalk chapel chart chase cheer cheese
cheetah chef cherry chess chicken chili chimney chive choose chorus chrome cicada cider cinema
circle circus citizen citrus clam classic clean clerk cliff climb clip cloak cloud clove clown
coarse cobalt cobra cocoa coconut cocoon coffee coin collar collect colony color comb comet common
compass contest cookie copper coral corgi cork corner cosmic cosmos cottage cotton cougar council
count cover cowboy coyote cozy crab cracker cradle crane crater crayon cream create creek crepe
crimson crisp critic cross crow cruise crystal cubic cumin cup curator curious currant curry
curtain cushion custard cute cyan cycle cypress dahlia dainty daisy dancer daring date dawn dazzle
decent decide deep deliver delta denim dentist depot desk dessert detail device dialog diamond
diary dice dingo doctor dog doll dolphin domino donkey donut door double dove dragon drama drawer
dress drill drink drive drop drum dry duchess duck dune duvet eager early earth eastern easy echo
eclipse editor effort elastic elbow elegant eleven elk emerald enamel endive energy engine enjoy
enter equator eraser escape evening event expert explore extra fabric fair falcon family famous
fancy farmer fast father faucet fence fennel fern ferret festive fetch fiber fiction field fierce
fiesta final finch finish firm fish flag flame flannel flask flavor flint float fluffy flute foam
focus folder forest formula forty forum fox fragile freezer fresh friend fringe fritter frog frost
fudge furnace future fuzzy gadget galaxy gallery gallop game garage garden garlic garnet gazelle
gecko genie gentle gerbil giant gifted ginger giraffe give glacier glade globe glossy glow goat
goggles golden golfer gong good goose gopher gorilla gown grandma granite granola grape grass
gravel gravy great green grin grotto grouse grove guard guava guest guide guitar gull gym hail
halibut halo hammer hammock hamster hanger happy harmony harp harvest hat hawk hazel healthy
heather heaven heavy hedge helium helmet helper helpful hermit hiker hill hinge hippo history
hobby holiday hollow honest honey hoodie hook horizon hornet horse hound huge human humble hummus
humor hunter husky hyena iceberg icicle ideal igloo iguana image imagine impala index indoor inlet
inner insect invent invite iron island ivory ivy jackal jacket jaguar jam jasmine jazz jeans jelly
jersey jewel jigsaw jockey joke journal journey joyful juggler juice jumbo jump jungle juniper
kale karate kayak kebab keen kernel ketchup kettle kimono kingdom kiosk kitchen kite kitten kiwi
kneel knit knob koala ladder ladle ladybug lagoon lake lamp lantern laptop large lark lasagna
lasso latch latte laugh laurel lava lavish lawyer lazy leader leaf learn leave ledger leek legume
lemming lemon lens lentil letter lettuce lever library lid lift light lilac lily lime linen lion
listen little lizard llama lobster local locket lodge lofty lotus lucky luggage lunar lunch lush
lychee lynx macaron macaw magic magma magnet magpie mailbox mammoth manager manatee mango mantis
mantle maple marble marker marlin maroon marsh mascot mask mayor maze measure medal medium medley
mellow melody melon memory mend mentor message meteor method metric metro midway mighty mild
minnow minor mint mirror misty mix mobile mocha modern modest moist mole moment monsoon moon mop
morning mosaic moss motel moth motion motor mouse movie mud muesli muffin museum musical nacho
napkin narrow native nature nebula nectar needle neon newt nickel nimble ninety noble nod noisy
nomad noodle north novel nugget number nutmeg nylon oasis oatmeal ocean octave octopus offer
officer olive omelet onion opal opera opossum option orange orbit orca orchard orchid orderly
oregano ostrich otter outfit oven oxygen oyster pack paddle page paint palace palm pancake panda
panel pansy panther papaya paper paprika parade parasol parcel parent parka parsley parsnip
partner pasta pastel pastry pasture patient patio pattern pause peach peacock peanut pear pebble
pecan peel pelican pencil pendant penguin penny people pepper perfect pesto petal phone photo
phrase physics piano pickle picnic picture pigeon piglet pilot pine pirate pitcher pixel pizza
plain planet plank plaque platter player playful plaza please pliers plum podium poet polar polite
polka pollen polo poncho pony popcorn popular porch poster potato pour prairie precise prefix
present pretty pretzel prime prince prism promise propane proper protect proud proverb public
pudding pueblo pulley puma pumpkin pupil puppet puppy purple purse puzzle pyramid python quail
quarry quartz queen quick quiet quiver quiz rabbit raccoon radar radio radish raft railing rain
raisin rally ramble rapids rare rattle raven ravine ravioli razor ready realm recipe record reef
referee regal region regular relax relish repair replay report rescue result return reward rhino
rhubarb rich riddle ridge ring rinse ripe ripple ritual river robin robust rock rodeo roller roomy
rooster root rose royal rubber ruby rudder rug ruler runway rural rustic rusty safari safe saffron
sailor salad salami salmon salsa salute sand sapling sardine satchel satin sauce sausage scallop
scarf scarlet scatter scenic scholar school science scone scooter scout screen screw scroll seal
search season secret seed seesaw serene serpent service sesame shade shadow shark shawl sheep
shelf sherbet sheriff shield shiny shirt shore shovel shower shrimp signal silent silk silly
silver simple sister sit size skate sketch skillet skip skunk sleepy sleeve slide slim slipper
sloth small smart smile smooth snail snake sneeze snow snug soccer social society sofa soil solid
solve sonar sorbet sort soup soybean spare sparkly sparrow spatula speak special speech speedy
spell sphere spicy spider spinach spiral splash sponge spoon spring sprite sprout spruce square
squash squeak squid stable stadium stage stapler star static station statue steady steel stew
sticky still stool stork stormy stove strap stream street stretch strict strong student studio
sturdy style subject subtle subway success sudden sugar summer summit sundae sunrise sunset super
supreme surface surfer surgeon sushi swamp swan sweater sweet swift swimmer swing swivel symbol
system tablet taco tadpole talent tandem tank tape tapioca target tart tassel tasty tavern teacher
team teapot teddy tell temple tempo tender tennis tenor tent terrier texture theater theory
thermos thick thimble thing thinker thistle thought thread throne throw thunder ticket tide tiger
timber tinsel tiny titan title toad toast today tofu token tomato topaz topic total totem toucan
tough tourist towel toy tractor trade trail trainer tray tree trend tribe trim tripod triumph
trivia trolley trophy tropics trout truck truffle trumpet truth tube tulip tuna tunic tunnel
turbine turkey turnip turret turtle tutor tuxedo tweed twelve twig twine twirl twist uncle unfold
uniform unique upbeat upland upper uptown urban urn useful usual utopia valid valley value vanilla
vapor variety vase vault vehicle veil velvet vendor verb verse version vessel vest vibrant victory
video view village vinegar violet violin viper vision visitor visor vitamin vivid voice volcano
vortex voyage vulture wade waffle wagon wait walk wallet walnut walrus waltz wander warbler warmth
wash water wavy weasel weekend welcome western wheel whisper whole wick willow wind winter wire
wisdom witty wok wolf wombat wooden wool worker world worm wrap wrench writer yak yarn yoga yogurt
yonder young zebra zenith zesty zipper zone zoom
"""

WORDS: tuple[str, ...] = tuple(_TEXT.split())
