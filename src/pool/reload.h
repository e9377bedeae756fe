// Takes the models of a configuration that changed into a running pool.
//
// Owned by the program. reload() from any thread, one at a time; it takes as long as reading the file, and
// the headers of checkpoints that are new. A configuration that is not sound changes nothing, nor does one
// that names no model where there were some: it is taken for a file that is being written, or was emptied by
// mistake. A model whose new checkpoint cannot be served stays what it is.
#pragma once

#include <functional>
#include <mutex>
#include <string>
#include <vector>

#include "pool/catalogue.h"
#include "pool/config.h"

namespace switchyard::pool {

class Reloader {
 public:
  struct Source {
    // The configuration as it is now, with whatever the command line says besides.
    std::function<Result<ServeConfig>()> read;
    // Finds checkpoints for models without a path, and a model where none is named.
    std::function<Status(ServeConfig&)> complete;
  };

  struct Outcome {
    CatalogueChange models;
    std::vector<std::string> needs_restart;  // keys that differ from those the program runs with
    std::vector<std::string> warnings;       // sentences: models whose new checkpoints cannot be served
  };

  // `running`: as it was read when the program started, not completed. The catalogue outlives this.
  Reloader(Source source, ServeConfig running, Catalogue& catalogue)
      : source_(std::move(source)), running_(std::move(running)), catalogue_(catalogue) {}

  // Logs what came of it, too. Errors: those of the file and of the catalogue.
  Result<Outcome> reload();

  // Of models that are added from now on.
  ModelSettings defaults() const;

 private:
  Result<Outcome> apply();
  std::vector<std::string> keep_working(std::vector<ModelSettings>& wanted) const;

  const Source source_;
  std::mutex reloading_;
  mutable std::mutex mutex_;
  ServeConfig running_;
  Catalogue& catalogue_;
};

// Tells when a file was written or replaced, by looking at it now and then: works on every file system, and
// through links that are turned to another directory. Not thread-safe.
class FileWatch {
 public:
  explicit FileWatch(std::filesystem::path file) : file_(std::move(file)), seen_(look()) {}
  // True once for each change that stood still from one call to the next: a file that is being written is
  // left to its end.
  bool changed();

 private:
  struct Look {
    std::uint64_t device = 0, inode = 0, bytes = 0;
    std::int64_t seconds = 0, nanos = 0;
    bool operator==(const Look&) const = default;
  };
  Look look() const;

  std::filesystem::path file_;
  Look seen_;
  Look pending_;
  bool waiting_ = false;
};

}  // namespace switchyard::pool
