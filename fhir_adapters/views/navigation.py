"""Steps from an element to its children, each marked as read: members, types, positions, existence."""

from dataclasses import replace

from fhir_adapters.views.elements import STORAGE, Element, Read, choices, element, is_a, is_resource, known_type
from fhir_adapters.views.errors import PathError
from fhir_adapters.views.values import EMPTY, Value, as_list, fresh, present, quote


def member(base: Value, name: str) -> Value:
    """The children of this FHIRPath name."""
    if base.type == "empty":
        return EMPTY
    if base.choice:
        # value.unit: only one of the types has such an element
        fitting = [one for one in base.choice[1] if element(one.type, name) or choices(one.type, name)]
        if len(fitting) == 1:
            return member(step(replace(base, choice=None), fitting[0]), name)
        raise PathError(f"{base.choice[0]}[x] has several types: choose one with .ofType() before .{name}")
    if base.primitive:
        if name == "extension":
            return _primitive_extensions(base)
        raise PathError(f"{base.type} has no element '{name}'")
    one = element(base.type, name)
    if one and one.choice:
        raise PathError(f"{name}: in FHIRPath write {one.choice}.ofType({one.type})")
    if one:
        return step(base, one)
    alternatives = choices(base.type, name)
    if not alternatives:
        raise PathError(f"{base.type} has no element '{name}'")
    if len(alternatives) == 1:
        return step(base, alternatives[0])
    return replace(base, choice=(name, tuple(alternatives)))


def step(base: Value, one: Element) -> Value:
    """The children of one JSON name, marked as read."""
    leaf = one.type in STORAGE
    assert base.read is not None
    try:
        read = base.read.child(one.name, many=one.many, leaf=leaf, rank=one.rank)
    except ValueError:
        raise PathError(f"'{one.name}' is used as two types that read differently") from None

    def get(parent: str) -> str:
        sql = f'_r."{one.name}"' if base.root else f"struct_extract({parent}, {quote(one.name)})"
        if base.guard:
            sql = f"(CASE WHEN {base.guard} THEN {sql} END)"
        if read.raw:
            sql = unpacked(sql, read)
        elif leaf and one.many:
            x = fresh()  # a repeating primitive may hold null where it has only extensions
            sql = f"list_filter({sql}, lambda {x}: {x} IS NOT NULL)"
        return sql

    origin = (base, one.name, one.many) if leaf else None
    made = Value(one.type, "", one.many, text=leaf, read=None if leaf else read, origin=origin)
    if not base.many:
        return replace(made, sql=get(base.sql))
    inner = base.item
    if not one.many:
        return replace(made, sql=base.sql, many=True, item=lambda it: get(inner(it) if inner else it))
    x = fresh()
    return replace(made, sql=f"flatten(list_transform({base.sql}, lambda {x}: {get(inner(x) if inner else x)}))")


def unpacked(sql: str, read: Read) -> str:
    """Elements read as JSON, as structs of what is read of them."""
    form = quote(read.structure())
    if not read.many:
        return f"from_json({sql}, {form})"
    x = fresh()
    return f"list_transform({sql}, lambda {x}: from_json({x}, {form}))"


def _primitive_extensions(value: Value) -> Value:
    """The extensions of a primitive, which FHIR's JSON keeps beside it as `_name`."""
    if value.origin is None:
        raise PathError("only an element has extensions")
    parent, name, many = value.origin
    beside = step(parent, Element(f"_{name}", "Element", many, "", 0))
    return member(beside, "extension")


def of_type(value: Value, type_: str) -> Value:
    """The items of a type."""
    if value.choice:
        name, alternatives = value.choice
        found = [one for one in alternatives if one.type == type_]
        # FHIR's later versions add types to a choice: what the instance has decides
        one = found[0] if found else Element(name + type_[0].upper() + type_[1:], type_, False, name, 1000)
        return step(replace(value, choice=None), one)
    if value.type in ("Resource", "DomainResource") and is_resource(type_):
        kind = Element("resourceType", "code", False, "", -1)
        if value.many:
            x, items = fresh(), as_list(value)
            found_type = step(Value("Resource", x, read=value.read), kind).sql
            return Value(
                type_, f"list_filter({items}, lambda {x}: {found_type} = {quote(type_)})", True, read=value.read
            )
        sql = f"(CASE WHEN {step(value, kind).sql} = {quote(type_)} THEN {value.sql} END)"
        return replace(value, type=type_, sql=sql)
    return value if is_a(value.type, type_) else EMPTY


def known(name: str) -> str:
    """The FHIR type of this name, or of the System type of this name. Raises PathError when there is none."""
    name = name[0].lower() + name[1:] if name[0].isupper() and name[0].lower() + name[1:] in STORAGE else name
    if not known_type(name):
        raise PathError(f"'{name}' is no type of FHIR R4")
    return name


def item_at(value: Value, position: str) -> Value:
    """The item at a position from 0 (SQL of an integer); empty where there is none."""
    if not value.many:
        guarded = f"(CASE WHEN {position} = 0 THEN {value.sql} END)"
        return value if position == "0" else picked(value, sql=guarded)
    where = str(int(position) + 1) if position.isdigit() else f"CASE WHEN {position} >= 0 THEN {position} + 1 END"
    return picked(value, sql=f"{as_list(value)}[{where}]")


def picked(value: Value, *, sql: str, many: bool = False) -> Value:
    """Items of `value` that were picked out by SQL."""
    return Value(value.type, sql, many, text=value.text, read=value.read)


def exists(value: Value) -> str:
    """SQL that is true when the collection has an item; never NULL. A choice exists when one of its types does."""
    if value.type == "empty":
        return "false"
    if value.choice:
        parent = replace(value, choice=None)
        return "(" + " OR ".join(present(step(parent, one)) for one in value.choice[1]) + ")"
    return present(value)
