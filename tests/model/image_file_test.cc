// Image files: what is written is read; what is damaged, cut short or half-written is not believed.
#include "model/image_file.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <thread>

#include "model/image_format.h"
#include "model/mapped_file.h"
#include "model/temporary_directory.h"
#include "model/tiny_checkpoint.h"

namespace switchyard::model {
namespace {

namespace fs = std::filesystem;

ImageDescription description() {
  return {.layout_version = 3,
          .source_hash = std::string(64, 'a'),
          .config = TinyModel().config,
          .tokenizer = std::vector<std::byte>(100, std::byte{9})};
}

std::vector<std::byte> noise(std::size_t size, std::uint64_t seed) {
  TinyRandom random(seed, "image");
  std::vector<std::byte> bytes(size);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random.byte());
  return bytes;
}

Status write_image(const fs::path& path, std::uint64_t seed = 1) {
  auto writer = ImageWriter::create(path, description());
  if (!writer) return pass(writer.error());
  if (auto status = (*writer)->add({.name = "small", .format = 1, .shape = {10, 1}}, noise(40, seed));
      !status)
    return status;
  ImageEntry large{.name = "large", .format = 2, .shape = {1000, 3000}, .parameters = {1, 2, 3, 4}};
  if (auto status = (*writer)->begin(large); !status) return status;
  const auto bytes = noise(3'000'000, seed + 1);
  for (std::size_t at = 0; at < bytes.size(); at += 7000) {
    const auto piece = std::span(bytes).subspan(at, std::min<std::size_t>(7000, bytes.size() - at));
    if (auto status = (*writer)->append(piece); !status) return status;
  }
  if (auto status = (*writer)->begin({.name = "empty"}); !status) return status;
  return (*writer)->finish();
}

std::vector<std::string> files_in(const fs::path& directory) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(directory)) names.push_back(entry.path().filename());
  std::ranges::sort(names);
  return names;
}

std::vector<std::byte> contents(const fs::path& path) {
  const auto mapping = MappedFile::open(path);
  EXPECT_TRUE(mapping);
  return {mapping->bytes().begin(), mapping->bytes().end()};
}

TEST(ImageFile, WhatIsWrittenIsRead) {
  TemporaryDirectory directory;
  const fs::path path = directory / "images/tiny.image";
  ASSERT_TRUE(write_image(path));
  const auto image = ImageFile::open(path);
  ASSERT_TRUE(image) << image.error().message;
  EXPECT_EQ((*image)->description(), description());
  ASSERT_EQ((*image)->entries().size(), 3u);
  const ImageEntry* large = (*image)->find("large");
  ASSERT_NE(large, nullptr);
  EXPECT_EQ(large->format, 2u);
  EXPECT_EQ(large->shape, (std::array<std::uint64_t, 2>{1000, 3000}));
  EXPECT_EQ(large->parameters, (std::array<std::uint32_t, 4>{1, 2, 3, 4}));
  EXPECT_EQ(large->offset % kImageAlignment, 0u);
  EXPECT_TRUE(std::ranges::equal((*image)->data(*large), noise(3'000'000, 2)));
  EXPECT_TRUE(std::ranges::equal((*image)->data(*(*image)->find("small")), noise(40, 1)));
  EXPECT_EQ((*image)->find("empty")->bytes, 0u);
  EXPECT_EQ((*image)->find("none"), nullptr);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>((*image)->data().data()) % kImageAlignment, 0u);
  EXPECT_EQ((*image)->file().size(), fs::file_size(path));
  std::uint64_t verified = 0;
  EXPECT_TRUE((*image)->verify([&](std::uint64_t done, std::uint64_t) { verified = done; }));
  EXPECT_EQ(verified, (*image)->data().size());
  EXPECT_EQ(files_in(directory / "images"), std::vector<std::string>{"tiny.image"});
}

TEST(ImageFile, TruncationsAndFlippedBitsAreRefused) {
  TemporaryDirectory directory;
  ASSERT_TRUE(write_image(directory / "a"));
  const auto bytes = contents(directory / "a");
  const auto whole = ImageFile::parse(bytes);
  ASSERT_TRUE(whole);
  const std::size_t index = kImageAlignment + (*whole)->data().size();
  for (std::size_t size = 0; size < bytes.size(); size += size < 200 || size >= index ? 1 : 4093) {
    ASSERT_FALSE(ImageFile::parse(std::span(bytes).first(size))) << size;
  }
  auto longer = bytes;
  longer.push_back(std::byte{0});
  EXPECT_FALSE(ImageFile::parse(longer));
  auto copy = bytes;
  const auto refuses_flips = [&](std::size_t from, std::size_t to) {
    for (std::size_t bit = from * 8; bit < to * 8; ++bit) {
      const auto flip = static_cast<std::byte>(1u << (bit % 8));
      copy[bit / 8] ^= flip;
      ASSERT_FALSE(ImageFile::parse(copy)) << bit;
      copy[bit / 8] ^= flip;
    }
  };
  refuses_flips(0, 128);
  refuses_flips(index, index + 64);
  refuses_flips(bytes.size() - 16, bytes.size());
  // Data is not read at open; verify() finds it.
  copy[kImageAlignment + 5000] ^= std::byte{1};
  const auto damaged = ImageFile::parse(copy);
  ASSERT_TRUE(damaged);
  EXPECT_EQ((*damaged)->verify().error().code, ErrorCode::corrupt);
}

TEST(ImageFile, AnIndexThatLeavesTheDataIsRefused) {
  const std::uint64_t data = 4 * kImageAlignment;
  const auto parse = [&](std::vector<ImageEntry> entries) {
    const auto bytes = serialize_image_index(description(), entries);
    return parse_image_index(bytes, data).has_value();
  };
  EXPECT_TRUE(parse({{.name = "a", .offset = 0, .bytes = data}}));
  EXPECT_FALSE(parse({{.name = "a", .offset = 0, .bytes = data + 1}}));
  EXPECT_FALSE(parse({{.name = "a", .offset = kImageAlignment, .bytes = ~std::uint64_t{0}}}));
  EXPECT_FALSE(parse({{.name = "a", .offset = 8 * kImageAlignment, .bytes = 0}}));
  EXPECT_FALSE(parse({{.name = "a", .offset = 64, .bytes = 64}}));
  EXPECT_FALSE(parse({{.name = "", .offset = 0, .bytes = 64}}));
  EXPECT_FALSE(parse({{.name = "a", .offset = 0, .bytes = 64}, {.name = "a", .offset = 4096, .bytes = 64}}));
  EXPECT_FALSE(
      parse({{.name = "a", .offset = 0, .bytes = 4097}, {.name = "b", .offset = 4096, .bytes = 64}}));
  const auto bytes =
      serialize_image_index(description(), std::vector<ImageEntry>{{.name = "a", .bytes = 64}});
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    ASSERT_FALSE(parse_image_index(std::span(bytes).first(size), data)) << size;
  }
}

TEST(ImageFile, AnotherVersionIsUnsupported) {
  TemporaryDirectory directory;
  ASSERT_TRUE(write_image(directory / "a"));
  auto bytes = contents(directory / "a");
  bytes[8] = std::byte{99};
  // Its own hash is right: the file is sound, only newer.
  Sha256 hash;
  hash.update(std::span(bytes).first(96));
  const auto digest = hash.finish();
  std::memcpy(bytes.data() + 96, digest.data(), digest.size());
  EXPECT_EQ(ImageFile::parse(bytes).error().code, ErrorCode::unsupported);
}

TEST(ImageWriter, WrongUseIsRefused) {
  TemporaryDirectory directory;
  auto writer = ImageWriter::create(directory / "a", description());
  ASSERT_TRUE(writer);
  EXPECT_EQ((*writer)->append(noise(1, 1)).error().code, ErrorCode::invalid);
  EXPECT_EQ((*writer)->begin({}).error().code, ErrorCode::invalid);
  EXPECT_TRUE((*writer)->begin({.name = "a"}));
  EXPECT_EQ((*writer)->begin({.name = "a"}).error().code, ErrorCode::invalid);
  EXPECT_TRUE((*writer)->finish());
  EXPECT_EQ((*writer)->finish().error().code, ErrorCode::invalid);
  EXPECT_EQ((*writer)->append({}).error().code, ErrorCode::invalid);
}

TEST(ImageWriter, AnUnfinishedOneLeavesNothing) {
  TemporaryDirectory directory;
  {
    auto writer = ImageWriter::create(directory / "a", description());
    ASSERT_TRUE(writer);
    EXPECT_TRUE((*writer)->add({.name = "a"}, noise(100, 1)));
    EXPECT_EQ(files_in(directory.path()).size(), 1u);
  }
  EXPECT_TRUE(files_in(directory.path()).empty());
}

TEST(ImageWriter, WhatAKilledWriterLeftIsRemovedByTheNext) {
  TemporaryDirectory directory;
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    auto writer = ImageWriter::create(directory / "a", description());
    if (writer) (void)(*writer)->add({.name = "a"}, noise(3'000'000, 1));
    kill(getpid(), SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status));
  ASSERT_EQ(files_in(directory.path()).size(), 1u);
  EXPECT_FALSE(ImageFile::open(directory.path() / files_in(directory.path()).front()));
  // Files that only look like it stay.
  write_file(directory / "notes.tmp.0123456789abcdef", "mine");
  write_file(directory / "b.tmp.1", "mine");
  auto living = ImageWriter::create(directory / "b", description());
  ASSERT_TRUE(living);
  EXPECT_EQ(files_in(directory.path()).size(), 3u);
  ASSERT_TRUE(write_image(directory / "a"));  // does not take the living one's
  ASSERT_TRUE((*living)->finish());
  EXPECT_EQ(files_in(directory.path()),
            (std::vector<std::string>{"a", "b", "b.tmp.1", "notes.tmp.0123456789abcdef"}));
}

TEST(ImageWriter, AFullDiskLeavesTheOldImage) {
  TemporaryDirectory directory;
  ASSERT_TRUE(write_image(directory / "a", 5));
  const auto before = contents(directory / "a");
  // A limit on the size of files stands in for a full disk; in a process of its own, since it holds for all
  // of it.
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{.rlim_cur = 1'500'000, .rlim_max = 1'500'000};
    setrlimit(RLIMIT_FSIZE, &limit);
    const auto status = write_image(directory / "a", 7);
    _exit(!status && status.error().code == ErrorCode::io &&
                  status.error().message.find("make room") != std::string::npos
              ? 0
              : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  EXPECT_EQ(contents(directory / "a"), before);
  EXPECT_EQ(files_in(directory.path()), std::vector<std::string>{"a"});
}

TEST(ImageWriter, SeveralAtOnceAreSafe) {
  TemporaryDirectory directory;
  std::vector<std::thread> threads;
  std::vector<std::string> errors(4);
  for (std::size_t i = 0; i < errors.size(); ++i) {
    threads.emplace_back([&, i] {
      for (int round = 0; round < 3; ++round) {
        if (auto status = write_image(directory / "a"); !status) errors[i] = status.error().message;
        const auto image = ImageFile::open(directory / "a");
        if (!image || !(*image)->verify()) errors[i] = "the image is damaged";
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::string& error : errors) EXPECT_EQ(error, "");
  EXPECT_EQ(files_in(directory.path()), std::vector<std::string>{"a"});
}

TEST(ImageWriter, AFolderThatCannotBeWritten) {
  TemporaryDirectory directory;
  write_file(directory / "file", "");
  EXPECT_EQ(ImageWriter::create(directory.path() / "file" / "a", description()).error().code, ErrorCode::io);
}

}  // namespace
}  // namespace switchyard::model
