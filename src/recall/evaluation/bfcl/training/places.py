"""The worlds of a stock account, a car and journeys, and all worlds by name."""

import copy
from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Any

from recall.evaluation.bfcl.training.plan import Draw, Turn, Worlds, calls
from recall.evaluation.bfcl.training.worlds import Files, Messages, Posts, Tickets


class Stocks:
    """An account with orders and a list of stocks to watch; the companies are invented."""

    backend = "TradingBot"

    def __init__(self, draw: Draw) -> None:
        self._draw = draw
        self._stocks = {
            draw.name().upper(): {
                "price": draw.amount(20, 400),
                "percent_change": 0.1,
                "volume": 1.5,
                "MA(5)": draw.amount(20, 400),
                "MA(20)": draw.amount(20, 400),
            }
            for _ in range(5)
        }
        *self._unwatched, watched = self._stocks
        self._watched = [watched]
        self._next = draw.rng.randrange(3000, 9000)
        symbol = draw.rng.choice(sorted(self._stocks))
        self._pending = [
            {
                "id": self._next - 1 - n,
                "order_type": "Buy",
                "symbol": symbol,
                "price": 20.5,
                "amount": 3,
                "status": "Open",
            }
            for n in range(2)
        ]
        self._seed = draw.rng.randrange(10**6)
        self._began = copy.deepcopy(self._pending), list(self._watched), self._next

    def config(self) -> dict[str, Any]:
        """See `World`."""
        pending, watched, counter = self._began
        return {
            "orders": {str(order["id"]): order for order in pending},
            "account_info": {"account_id": self._seed, "balance": 90_000.0, "binding_card": 10**15 + self._seed},
            "authenticated": True,
            "market_status": "Open",
            "order_counter": counter,
            "stocks": self._stocks,
            "watch_list": watched,
            "transaction_history": [],
            "random_seed": self._seed,
        }

    def moves(self) -> Sequence[Callable[[], Turn]]:
        """See `World`."""
        watch = (self._watch,) if self._unwatched else ()
        cancel = (self._cancel,) if self._pending else ()
        return (self._buy, self._deposit, self._withdraw, *watch, *cancel)

    def _watch(self) -> Turn:
        new, old = self._unwatched.pop(), self._watched.pop()
        self._watched.append(new)
        said = self._draw.say(f"Watch {new} instead of {old}.", f"Put {new} on my watchlist, and take {old} off it.")
        return Turn(said, calls(("add_to_watchlist", {"stock": new}), ("remove_stock_from_watchlist", {"symbol": old})))

    def _buy(self) -> Turn:
        symbol, amount = self._draw.rng.choice(sorted(self._stocks)), self._draw.rng.randint(2, 19)
        said = self._draw.say(
            f"Buy {amount} shares of {symbol} at its current price.",
            f"Place a Buy order for {amount} {symbol} at what it costs now.",
        )
        order = {"order_type": "Buy", "symbol": symbol, "price": self._stocks[symbol]["price"], "amount": amount}
        return Turn(said, calls(("get_stock_info", {"symbol": symbol}), ("place_order", order)))

    def _deposit(self) -> Turn:
        amount = self._draw.amount(100, 900)
        said = self._draw.say(f"Put {amount} dollars into my account.", f"Fund the account with {amount}.")
        return Turn(said, calls(("fund_account", {"amount": amount})))

    def _withdraw(self) -> Turn:
        amount = self._draw.amount(100, 900)
        said = self._draw.say(f"Take {amount} dollars out of my account.", f"Withdraw {amount} from my funds.")
        return Turn(said, calls(("withdraw_funds", {"amount": amount})))

    def _cancel(self) -> Turn:
        number = self._pending.pop()["id"]
        said = self._draw.say(f"Cancel order {number}.", f"I do not want order number {number} any more; cancel it.")
        return Turn(said, calls(("cancel_order", {"order_id": number})))


class Car:
    """A car that stands, its doors open."""

    backend = "VehicleControlAPI"
    _DOORS = ("driver", "passenger", "rear_left", "rear_right")

    def __init__(self, draw: Draw) -> None:
        self._draw = draw
        self._locked = draw.rng.sample(self._DOORS, draw.rng.randint(0, 2))
        self._fuel = draw.amount(3, 15)
        self._seed = draw.rng.randrange(10**6)
        self._began = list(self._locked), self._fuel
        self._running = False

    def config(self) -> dict[str, Any]:
        """See `World`."""
        locked, fuel = self._began
        return {
            "random_seed": self._seed,
            "fuelLevel": fuel,
            "doorStatus": {door: "locked" if door in locked else "unlocked" for door in self._DOORS},
        }

    def moves(self) -> Sequence[Callable[[], Turn]]:
        """See `World`."""
        return (self._fill, self._climate, self._navigate, self._cruise if self._running else self._start)

    def _fill(self) -> Turn:
        amount = self._draw.rng.randint(3, 9) + 0.25
        self._fuel += amount
        said = self._draw.say(f"Add {amount} gallons of fuel.", f"Put another {amount} gallons into the tank.")
        return Turn(said, calls(("fillFuelTank", {"fuelAmount": amount})))

    def _climate(self) -> Turn:
        temperature, fan = self._draw.rng.randint(17, 27) + 0.5, self._draw.rng.randint(11, 89)
        mode = self._draw.rng.choice(("cool", "heat", "defrost"))
        said = self._draw.say(
            f"Set the climate to {temperature} degrees celsius, mode {mode}, fan at {fan}.",
            f"I want {temperature} degrees celsius inside, with the fan speed at {fan} and the mode {mode}.",
        )
        wanted = {"temperature": temperature, "unit": "celsius", "fanSpeed": fan, "mode": mode}
        return Turn(said, calls(("adjustClimateControl", wanted)))

    def _navigate(self) -> Turn:
        place = f"{self._draw.rng.randint(2, 99)} {self._draw.person()} Road, {self._draw.person()}"
        said = self._draw.say(f"Navigate to {place}", f"Set the navigation to this address: {place}")
        return Turn(said, calls(("set_navigation", {"destination": place})))

    def _start(self) -> Turn:
        self._running = True
        doors = [door for door in self._DOORS if door not in self._locked]
        said = self._draw.say(
            "Start the engine; do first whatever has to be done before that.",
            "Get the car running. It may want its doors locked and the brake fully pressed.",
        )
        steps = (
            ("displayCarStatus", {"option": "doors"}),
            ("lockDoors", {"unlock": False, "door": doors}),
            ("pressBrakePedal", {"pedalPosition": 1.0}),
            ("startEngine", {"ignitionMode": "START"}),
        )
        return Turn(said, calls(*steps))

    def _cruise(self) -> Turn:
        speed, distance = 5 * self._draw.rng.randint(5, 20), self._draw.rng.randint(31, 97) + 0.5
        said = self._draw.say(
            f"Turn cruise control on at {speed}, keeping {distance} meters to the next vehicle.",
            f"Cruise at {speed} with a distance of {distance} meters to whoever is ahead.",
        )
        wanted = {"speed": speed, "activate": True, "distanceToNextVehicle": distance}
        return Turn(said, calls(("setCruiseControl", wanted)))


class Journeys:
    """A traveller with a card, and a flight that is booked."""

    backend = "TravelAPI"
    _ROUTES = (("SFO", "LAX"), ("LAX", "JFK"), ("JFK", "BOS"), ("ORD", "BOS"), ("CRH", "HKG"), ("LAX", "ORD"))

    def __init__(self, draw: Draw) -> None:
        self._draw = draw
        self._token, self._card = draw.name(), str(draw.rng.randrange(10**11, 10**12))
        self._booked = [str(draw.rng.randrange(10**6, 10**7))]
        self._seed = draw.rng.randrange(10**6)
        self._first, self._last = draw.person(), draw.person()
        self._began = list(self._booked)

    def config(self) -> dict[str, Any]:
        """See `World`."""
        card = {"card_number": self._card[::-1], "cardholder_name": self._last, "balance": 60_000.0}
        flight = {"card_id": self._card, "travel_cost": 410.0, "travel_class": "economy"}
        return {
            "random_seed": self._seed,
            "credit_card_list": {self._card: card},
            "booking_record": dict.fromkeys(self._began, flight),
            "access_token": self._token,
            "token_type": "Bearer",
            "token_expires_in": 3600,
            "token_scope": "read_write",
            "user_first_name": self._first,
            "user_last_name": self._last,
            "budget_limit": None,
        }

    def moves(self) -> Sequence[Callable[[], Turn]]:
        """See `World`."""
        return (self._limit, self._book, self._register, *((self._cancel,) if self._booked else ()))

    def _with_token(self, *ways: str) -> str:
        return f"{self._draw.say(*ways)} (My access token is {self._token}.)"

    def _limit(self) -> Turn:
        amount = self._draw.amount(2000, 9000)
        said = self._with_token(f"Set my budget limit to {amount}.", f"I must not spend more than {amount}; set that.")
        return Turn(said, calls(("set_budget_limit", {"access_token": self._token, "budget_limit": amount})))

    def _book(self) -> Turn:
        start, end = self._draw.rng.choice(self._ROUTES)
        date = f"2031-{self._draw.rng.randint(1, 12):02}-{self._draw.rng.randint(1, 28):02}"
        kind = self._draw.rng.choice(("economy", "business"))
        said = self._with_token(
            f"Book a flight from {start} to {end} on {date}, {kind} class, with card {self._card}.",
            f"I fly {kind} from {start} to {end} on {date}. Book it and charge card {self._card}.",
        )
        wanted = {
            "access_token": self._token,
            "card_id": self._card,
            "travel_date": date,
            "travel_from": start,
            "travel_to": end,
            "travel_class": kind,
        }
        return Turn(said, calls(("book_flight", wanted)))

    def _register(self) -> Turn:
        number, holder = str(self._draw.rng.randrange(10**15, 10**16)), f"{self._first} {self._draw.person()}"
        expires, code = f"{self._draw.rng.randint(1, 12):02}/2033", self._draw.rng.randrange(100, 1000)
        said = self._with_token(
            f"Register the card {number} of {holder}; it expires {expires} and its code is {code}.",
            f"Add a credit card. Number {number}, holder {holder}, valid until {expires}, verification number {code}.",
        )
        wanted = {
            "access_token": self._token,
            "card_number": number,
            "expiration_date": expires,
            "cardholder_name": holder,
            "card_verification_number": code,
        }
        return Turn(said, calls(("register_credit_card", wanted)))

    def _cancel(self) -> Turn:
        number = self._booked.pop()
        said = self._with_token(f"Cancel my booking {number}.", f"Booking {number} has to be cancelled.")
        return Turn(said, calls(("cancel_booking", {"access_token": self._token, "booking_id": number})))


WORLDS = Worlds(
    MappingProxyType(
        {
            "files": Files,
            "messages": Messages,
            "posts": Posts,
            "stocks": Stocks,
            "car": Car,
            "tickets": Tickets,
            "journeys": Journeys,
        }
    )
)
"""Every world by name."""
TRAINED = ("files", "messages", "posts", "stocks", "car")
"""The worlds of the splits `train` and `validation`."""
HELD_OUT = ("tickets", "journeys")
"""Those of the split `new_backends` alone: what is never trained on."""
