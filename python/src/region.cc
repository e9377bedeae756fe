#include "region.h"

namespace switchyard::python {

RegisteredMemory::~RegisteredMemory() {
  if (!region_.here()) return;
  *region_ = {};
  returned_->put(std::move(*memory_));
}

Region RegisteredMemory::handle_of(const std::shared_ptr<RegisteredMemory>& self) {
  // Points to the engine's state, owns all of this.
  return Region(std::shared_ptr<Region::State>(self, self->region_->state().get()));
}

void RegionTable::add(std::shared_ptr<RegisteredMemory> memory) {
  std::lock_guard lock(mutex_);
  all_.insert(std::move(memory));
}

void RegionTable::remove(const std::shared_ptr<RegisteredMemory>& memory) {
  std::lock_guard lock(mutex_);
  all_.erase(memory);
}

void RegionTable::clear() {
  std::unordered_set<std::shared_ptr<RegisteredMemory>> all;
  std::lock_guard lock(mutex_);
  all.swap(all_);
}

PyRegion::PyRegion(std::weak_ptr<RegionTable> table, const std::shared_ptr<RegisteredMemory>& memory,
                   std::shared_ptr<Returned> returned)
    : table_(std::move(table)), memory_(memory), key_(memory->key()), returned_(std::move(returned)) {}

void PyRegion::close() {
  if (auto memory = memory_.lock()) {
    if (auto table = table_.lock()) table->remove(memory);
  }
  returned_->give_back();
}

void bind_regions(nanobind::module_& module) {
  nb::class_<PyRegion>(module, "Region", nb::is_weak_referenceable(),
                       "Memory of a Python object that an engine reads from and peers write into.\n\n"
                       "Stays registered, and keeps the object alive, until close() or until its engine "
                       "closes; dropping this handle\n"
                       "does neither, because peers may still hold its key.")
      .def_prop_ro("key", &PyRegion::key, "What a peer needs to write into it; hand it over by any means.")
      .def_prop_ro(
          "nbytes", [](const PyRegion& self) { return self.key().bytes; }, "Length in bytes.")
      .def_prop_ro(
          "closed", [](const PyRegion& self) { return self.memory() == nullptr; }, "True after close().")
      .def("close", &PyRegion::close,
           "Unregisters the memory and lets go of the object; transfers that still read from it delay both "
           "until\n"
           "they have drained. Peers' later writes fail at the peer. Make sure that no peer is writing.")
      .def(
          "__enter__", [](nb::object self) { return self; }, nb::sig("def __enter__(self) -> Region"))
      .def(
          "__exit__", [](PyRegion& self, nb::args) { self.close(); },
          nb::sig("def __exit__(self, *args: object) -> None"))
      .def("__repr__", [](const PyRegion& self) {
        return nb::str(fmt::format("<switchyard.Region of {} bytes{}>", self.key().bytes,
                                   self.memory() == nullptr ? ", closed" : "")
                           .c_str());
      });
}

}  // namespace switchyard::python
