#include "names.h"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <bit>
#include <cstring>
#include <new>

#include "errors.h"
#include "exported.h"
#include "switchyard/transfer.h"

namespace switchyard::python {

using namespace nb::literals;

namespace {

static_assert(std::endian::native == std::endian::little, "CounterId's bytes are little-endian");

std::vector<std::byte> bytes_of(nb::handle data, const char* what) {
  Exported memory(data, what);
  memory.require_contiguous(what);
  return {memory.data(), memory.data() + memory.bytes()};
}

nb::bytes to_bytes(const std::vector<std::byte>& bytes) { return nb::bytes(bytes.data(), bytes.size()); }

std::vector<std::byte> serialize(const PeerAddress& value) { return value.serialize(); }
std::vector<std::byte> serialize(const RegionKey& value) { return value.serialize(); }
std::vector<std::byte> serialize(const CounterId& value) {
  std::vector<std::byte> bytes(sizeof value);
  std::memcpy(bytes.data(), &value, sizeof value);
  return bytes;
}

template <class T>
T parse(nb::handle data) {
  return unwrap(T::parse(bytes_of(data, "parse")));
}
template <>
CounterId parse<CounterId>(nb::handle data) {
  static_assert(sizeof(CounterId) == 16);
  const std::vector<std::byte> bytes = bytes_of(data, "parse");
  if (bytes.size() != sizeof(CounterId)) {
    raise(ErrorCode::corrupt, "a counter's name has {} bytes, not {}", sizeof(CounterId), bytes.size());
  }
  CounterId id;
  std::memcpy(&id, bytes.data(), sizeof id);
  return id;
}

// Both ways to bytes, and what Python expects of a value: equality, hash, pickle, copy.
template <class T>
nb::class_<T> bind_name(nb::module_& module, const char* name, const char* text) {
  nb::class_<T> type(module, name, text);
  type.def(
          "serialize", [](const T& self) { return to_bytes(serialize(self)); }, "Its bytes, for parse().")
      .def("__bytes__", [](const T& self) { return to_bytes(serialize(self)); })
      .def_static("parse", &parse<T>, "data"_a, "From the bytes of serialize(). Raises Corrupt.",
                  nb::sig(("def parse(data: typing_extensions.Buffer) -> " + std::string(name)).c_str()))
      .def(
          "__eq__", [](const T& self, const T& other) { return self == other; }, nb::is_operator(),
          nb::sig("def __eq__(self, other: object, /) -> bool"))
      .def("__hash__", [](const T& self) { return nb::hash(to_bytes(serialize(self))); })
      .def("__getstate__", [](const T& self) { return to_bytes(serialize(self)); })
      .def("__setstate__", [](T& self, const nb::bytes& state) { new (&self) T(parse<T>(state)); });
  return type;
}

}  // namespace

void bind_names(nb::module_& module) {
  bind_name<PeerAddress>(
      module, "PeerAddress",
      "Where an engine is reached. Good until that engine closes: one that is opened later, at the\n"
      "same port even, has another address, and this one is refused (Denied).")
      .def_ro("control_host", &PeerAddress::control_host, "Host of the control channel.")
      .def_ro("control_port", &PeerAddress::control_port, "TCP port of the control channel.")
      .def_ro("epoch", &PeerAddress::epoch, "Another number for each engine.")
      .def_prop_ro(
          "fabrics",
          [](const PeerAddress& self) {
            std::vector<std::string> names;
            for (const auto& rail : self.rails) names.push_back(rail.fabric);
            return names;
          },
          "The fabric of each rail.")
      .def("__repr__", [](const PeerAddress& self) {
        return fmt::format("<switchyard.PeerAddress {}:{} epoch {:016x}>", self.control_host,
                           self.control_port, self.epoch);
      });
  bind_name<RegionKey>(module, "RegionKey",
                       "What a peer needs to write into a region, beside the address of the region's engine.")
      .def_ro("nbytes", &RegionKey::bytes, "Length of the region in bytes.")
      .def_ro("epoch", &RegionKey::epoch, "The epoch of the region's engine.")
      .def("__repr__", [](const RegionKey& self) {
        return fmt::format("<switchyard.RegionKey of {} bytes, epoch {:016x}>", self.bytes, self.epoch);
      });
  bind_name<CounterId>(module, "CounterId", "Names a counter of a peer.")
      .def_ro("slot", &CounterId::slot)
      .def_ro("generation", &CounterId::generation)
      .def_ro("epoch", &CounterId::epoch, "The epoch of the counter's engine.")
      .def("__repr__", [](const CounterId& self) {
        return fmt::format("<switchyard.CounterId {}.{} epoch {:016x}>", self.slot, self.generation,
                           self.epoch);
      });
}

}  // namespace switchyard::python
