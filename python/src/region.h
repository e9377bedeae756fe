// Registered memory of Python objects.
#pragma once

#include <nanobind/nanobind.h>

#include <memory>
#include <mutex>
#include <unordered_set>

#include "exported.h"
#include "process_bound.h"
#include "switchyard/transfer.h"

namespace switchyard::python {

// The registration and the object's memory. Shared by the Python Region, by its engine, and by each transfer
// that reads from it until that has drained; the last one to go unregisters the memory and gives it back.
class RegisteredMemory {
 public:
  RegisteredMemory(Region region, Exported memory, std::shared_ptr<Returned> returned)
      : region_(std::move(region)), memory_(std::move(memory)), returned_(std::move(returned)) {}
  // Any thread, with or without the GIL.
  ~RegisteredMemory();

  // A handle for the engine that keeps `self` alive.
  static Region handle_of(const std::shared_ptr<RegisteredMemory>& self);
  RegionKey key() const { return region_->key(); }

 private:
  ProcessBound<Region> region_;
  ProcessBound<Exported> memory_;
  std::shared_ptr<Returned> returned_;
};

// The regions of one engine; they stay until they are closed or the engine is. Any thread.
class RegionTable {
 public:
  void add(std::shared_ptr<RegisteredMemory> memory);
  void remove(const std::shared_ptr<RegisteredMemory>& memory);
  void clear();

 private:
  std::mutex mutex_;
  std::unordered_set<std::shared_ptr<RegisteredMemory>> all_;
};

// switchyard.Region: a name for an entry of the table.
class PyRegion {
 public:
  PyRegion(std::weak_ptr<RegionTable> table, const std::shared_ptr<RegisteredMemory>& memory,
           std::shared_ptr<Returned> returned);
  const RegionKey& key() const { return key_; }
  // Nothing once it was closed, by itself or with its engine.
  std::shared_ptr<RegisteredMemory> memory() const { return memory_.lock(); }
  // With the GIL.
  void close();

 private:
  std::weak_ptr<RegionTable> table_;
  std::weak_ptr<RegisteredMemory> memory_;
  RegionKey key_;
  std::shared_ptr<Returned> returned_;
};

void bind_regions(nanobind::module_& module);

}  // namespace switchyard::python
