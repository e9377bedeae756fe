#include "model/checkpoint_hash.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>

#include "model/temporary_directory.h"

namespace switchyard::model {
namespace {

namespace fs = std::filesystem;

class CheckpointHash : public testing::Test {
 protected:
  void write(const std::string& name, std::string_view text, std::int64_t modified_seconds = 1'700'000'000) {
    std::ofstream(directory_ / name) << text;
    const timespec times[2] = {{modified_seconds, 0}, {modified_seconds, 0}};
    utimensat(AT_FDCWD, (directory_ / name).c_str(), times, 0);
  }

  std::string hash(const std::vector<std::string>& names) {
    read_ = 0;
    std::vector<fs::path> files;
    for (const std::string& name : names) files.push_back(directory_ / name);
    HashOptions options{.cache = cache_,
                        .progress = [&](std::uint64_t done, std::uint64_t) { read_ = done; }};
    const auto result = hash_files(files, options);
    EXPECT_TRUE(result) << result.error().message;
    return result.value_or("");
  }

  TemporaryDirectory directory_;
  fs::path cache_ = directory_ / "cache";
  std::uint64_t read_ = 0;
};

TEST_F(CheckpointHash, ASecondTimeReadsNothing) {
  write("a", "weights");
  write("b", "config");
  const std::string first = hash({"a", "b"});
  EXPECT_EQ(first.size(), 64u);
  EXPECT_EQ(read_, 13u);
  EXPECT_EQ(hash({"a", "b"}), first);
  EXPECT_EQ(read_, 0u);
  EXPECT_NE(hash({"b", "a"}), first);
  EXPECT_NE(hash({"a"}), first);
}

TEST_F(CheckpointHash, APipeIsNotWaitedFor) {
  const fs::path pipe = directory_ / "pipe";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  const auto hash = hash_files(std::span(&pipe, 1), {});
  ASSERT_FALSE(hash);
  EXPECT_EQ(hash.error().code, ErrorCode::invalid);
}

TEST_F(CheckpointHash, AChangedFileIsReadAgain) {
  write("a", "weights");
  const std::string first = hash({"a"});
  write("a", "Weights", 1'700'000'001);  // another time
  const std::string second = hash({"a"});
  EXPECT_NE(second, first);
  EXPECT_EQ(read_, 7u);
  write("c", "weighty");  // another inode, the same time and size
  fs::rename(directory_ / "c", directory_ / "a");
  EXPECT_NE(hash({"a"}), second);
  EXPECT_EQ(read_, 7u);
}

TEST_F(CheckpointHash, AFileOfJustNowIsNotRemembered) {
  std::ofstream(directory_ / "a") << "weights";
  const std::string first = hash({"a"});
  EXPECT_EQ(hash({"a"}), first);
  EXPECT_EQ(read_, 7u);
}

TEST_F(CheckpointHash, ADamagedCacheIsNotBelieved) {
  write("a", "weights");
  const std::string first = hash({"a"});
  for (const auto& entry : fs::directory_iterator(cache_)) {
    std::fstream file(entry.path(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(-40, std::ios::end);  // in the remembered hash
    file.put('x');
  }
  EXPECT_EQ(hash({"a"}), first);
  EXPECT_EQ(read_, 7u);
  for (const auto& entry : fs::directory_iterator(cache_)) fs::resize_file(entry.path(), 10);
  EXPECT_EQ(hash({"a"}), first);
  EXPECT_EQ(read_, 7u);
}

TEST_F(CheckpointHash, WithoutACache) {
  write("a", "weights");
  const std::string first = hash({"a"});
  cache_.clear();
  EXPECT_EQ(hash({"a"}), first);
  EXPECT_EQ(read_, 7u);
  cache_ = directory_ / "a" / "no-folder";  // cannot be made
  EXPECT_EQ(hash({"a"}), first);
}

TEST_F(CheckpointHash, AMissingFile) {
  const std::vector<fs::path> files = {directory_ / "none"};
  EXPECT_EQ(hash_files(files, {}).error().code, ErrorCode::not_found);
}

}  // namespace
}  // namespace switchyard::model
